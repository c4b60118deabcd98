"""`--backend-config=<backend>,<setting>=<value>`: what backends are told at start, by Triton's names."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from naiad.backends.base import Backend
from naiad.backends.registry import BACKENDS
from naiad.errors import ConfigError
from naiad.server.threads import AUTO, MOST

DEFAULT_BATCH, START, INTRA = "default-max-batch-size", "stub-timeout-seconds", "intra_op_thread_count"
MOST_BATCH = 2**31 - 1
DAY = 86400
_TRUTHS = {"0": "0", "false": "0", "1": "1", "true": "1"}

Check = Callable[[str], str]
"""A value as it is kept; raises `ValueError` that says what is expected."""


def _number(least: int, most: int) -> Check:
    def check(text: str) -> str:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most):
            raise ValueError(f"{least} to {most}")
        return str(int(text))

    return check


def _truth(text: str) -> str:
    if text.lower() not in _TRUTHS:
        raise ValueError("0, 1, false or true")
    return _TRUTHS[text.lower()]


def _fraction(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError("a fraction of 0 to 1")
    return str(number)


def _version(text: str) -> str:
    if text != "2":
        raise ValueError("2 (SavedModels of TensorFlow 1 are served by TensorFlow 2)")
    return text


_EVERY: Mapping[str, Check] = {DEFAULT_BATCH: _number(0, MOST_BATCH), START: _number(1, DAY)}
SETTINGS: Mapping[str, Mapping[str, Check]] = {
    **{name: _EVERY for name in ("", *BACKENDS)},
    "onnxruntime": {**_EVERY, INTRA: _number(0, MOST), "inter_op_thread_count": _number(0, MOST)},
    "tensorflow": {**_EVERY, "allow-soft-placement": _truth, "gpu-memory-fraction": _fraction, "version": _version},
}
"""What has an effect, by backend; `""` stands for all of them."""
_ARENA = "tensors travel in memory without a name, which is as large as they are"
NO_EFFECT: Mapping[str, Mapping[str, str]] = {
    "onnxruntime": {"enable-global-threadpool": "a worker has one session, so that its threads are its own"},
    "python": {
        "shm-default-byte-size": _ARENA,
        "shm-growth-byte-size": _ARENA,
        "shm-region-prefix-name": _ARENA,
        "shm_message_queue_size": "requests reach a worker through a socket",
        "thread-pool-size": "a worker answers in the thread that asked it",
    },
}
"""What Triton has and Naiad takes without effect, each with the reason."""


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """The settings that have an effect: by backend, then by name; `""` stands for every backend."""

    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was taken without effect, and why."""

    def _value(self, backend: str, name: str) -> str | None:
        return self.settings.get(backend, {}).get(name, self.settings.get("", {}).get(name))

    def applied(self, backend: Backend) -> Backend:
        """The backend as the settings want it."""
        size = self._value(backend.name, DEFAULT_BATCH)
        return backend if size is None else dataclasses.replace(backend, max_batch_size=int(size))

    def threads(self, backend: str, default: str) -> str:
        """Threads of a model of this backend that does not say, as `--model-threads` is spelled."""
        count = self._value(backend, INTRA)
        return default if count is None else AUTO if count == "0" else count

    def start_secs(self, backend: str) -> float | None:
        """Seconds in which the framework has to be imported; None where nothing says."""
        seconds = self._value(backend, START)
        return None if seconds is None else float(seconds)

    def told(self, backend: str) -> dict[str, str]:
        """What the worker's half reads of them."""
        told = self.settings.get(backend, {})
        return {name: value for name, value in told.items() if name not in (*_EVERY, INTRA)}


def parse(texts: Iterable[str]) -> BackendConfig:
    """Reads the options in their order, the last wins; raises `ConfigError` for a value that cannot be."""
    settings: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    for text in texts:
        backend, name, value = _split(text)
        check = SETTINGS.get(backend, {}).get(name)
        if check is None:
            notes.append(f"option --backend-config={text} has no effect: {_why(backend, name)}")
            continue
        try:
            settings.setdefault(backend, {})[name] = check(value)
        except ValueError as error:
            place = f"{backend},{name}" if backend else name
            raise ConfigError(f"option --backend-config: {place}: expected {error}, got '{value}'") from None
    return BackendConfig(settings, tuple(notes))


def _split(text: str) -> tuple[str, str, str]:
    """Backend ("" for all), setting and value; a value may hold commas."""
    setting, equals, value = text.partition("=")
    backend, comma, name = setting.rpartition(",")
    if not equals or not name or (comma and not backend):
        raise ConfigError(f"option --backend-config: expected <backend>,<setting>=<value>, got '{text}'")
    return backend, name, value


def _why(backend: str, name: str) -> str:
    """Why a setting has no effect."""
    if backend not in SETTINGS:
        return f"there is no backend '{backend}'; {', '.join(sorted(BACKENDS))} are there"
    reason = NO_EFFECT.get(backend, {}).get(name)
    if reason is not None:
        return reason
    known = sorted(SETTINGS[backend])
    near = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean '{near[0]}'?" if near else f"there is {', '.join(known)}"
    return f"{f'backend {backend!r} has' if backend else 'there is'} no setting '{name}'; {meant}"
