"""`--backend-config=<backend>,<setting>=<value>`: what backends are told at start."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from naiad.backends.base import Backend
from naiad.errors import ConfigError

DEFAULT_BATCH = "default-max-batch-size"
MOST_BATCH = 2**31 - 1


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """The settings that have a meaning; `""` stands for every backend."""

    default_batch: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def applied(self, backend: Backend) -> Backend:
        """The backend as the settings want it."""
        size = self.default_batch.get(backend.name, self.default_batch.get(""))
        return backend if size is None else dataclasses.replace(backend, max_batch_size=size)


def parse(texts: Iterable[str]) -> BackendConfig:
    """Reads the options in their order, the last wins; raises `ConfigError`."""
    sizes: dict[str, int] = {}
    ignored: list[str] = []
    for text in texts:
        backend, comma, rest = text.rpartition(",")
        name, equals, value = rest.partition("=")
        if not equals or not name or (comma and not backend):
            raise ConfigError(f"option --backend-config: expected <backend>,<setting>=<value>, got '{text}'")
        if name != DEFAULT_BATCH:
            ignored.append(f"backend-config={text}")
        elif not value.isascii() or not value.isdigit() or int(value) > MOST_BATCH:
            raise ConfigError(f"option --backend-config: {name}: expected 0 to {MOST_BATCH}, got '{value}'")
        else:
            sizes[backend] = int(value)
    return BackendConfig(sizes, tuple(ignored))
