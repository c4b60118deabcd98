"""The state of every model version as the repository index shows it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

READY, LOADING, UNLOADING, UNAVAILABLE = "READY", "LOADING", "UNLOADING", "UNAVAILABLE"


@dataclass(slots=True)
class _Model:
    versions: dict[int, tuple[str, str]] = field(default_factory=dict)
    wanted: bool = False
    failed: str = ""


class States:
    """Tells the core the index at each change; safe to be called from several threads."""

    def __init__(self, tell: Callable[[bytes], None], tell_ready: Callable[[bool], None], *, strict: bool) -> None:
        self._tell = tell
        self._tell_ready = tell_ready
        self._strict = strict
        self._models: dict[str, _Model] = {}
        self._started = False
        self._closed = False
        self._lock = threading.Lock()

    def know(self, name: str) -> None:
        """A model that is in a repository and was never loaded (W66)."""
        with self._lock:
            self._models.setdefault(name, _Model())
            self._publish()

    def forget(self, name: str) -> None:
        """A model that is gone from the repository."""
        with self._lock:
            self._models.pop(name, None)
            self._publish()

    def want(self, name: str, *, wanted: bool) -> None:
        """Whether somebody asked for the model: strict readiness counts it."""
        with self._lock:
            if wanted or name in self._models:
                model = self._models.setdefault(name, _Model())
                model.wanted, model.failed = wanted, ""
                self._publish()

    def missing(self, name: str, reason: str) -> None:
        """A model that was asked for and lies in no repository: what a client makes up leaves no trace."""
        with self._lock:
            model = self._models.setdefault(name, _Model())
            if self._started and not model.versions:
                del self._models[name]
            else:
                model.failed = reason
            self._publish()

    def set(self, name: str, version: int, state: str, reason: str = "") -> None:
        """The state of a version."""
        with self._lock:
            self._models.setdefault(name, _Model()).versions[version] = (state, reason)
            self._publish()

    def fail(self, name: str, reason: str) -> None:
        """A model that could not be loaded at all, no version named."""
        with self._lock:
            self._models.setdefault(name, _Model()).failed = reason
            self._publish()

    def started(self) -> None:
        """The models of the start have been tried."""
        with self._lock:
            self._started = True
            self._publish()

    def close(self) -> None:
        """The server is going down: whatever still happens to models, it is not ready again."""
        with self._lock:
            self._closed = True
            self._tell_ready(False)

    def is_ready(self, name: str) -> bool:
        """Whether a version of the model is READY."""
        with self._lock:
            model = self._models.get(name)
            return model is not None and any(state == READY for state, _ in model.versions.values())

    def _publish(self) -> None:
        rows = []
        for name, model in sorted(self._models.items()):
            if not model.versions:
                row: dict[str, object] = {"name": name}
                if model.failed:
                    row.update(state=UNAVAILABLE, reason=model.failed)
                rows.append(row)
            for version, (state, reason) in sorted(model.versions.items()):
                row = {"name": name, "version": version, "state": state}
                if reason:
                    row["reason"] = reason
                rows.append(row)
        self._tell(json.dumps(rows).encode())
        whole = not self._strict or all(map(_whole, self._models.values()))
        self._tell_ready(self._started and not self._closed and whole)


def _whole(model: _Model) -> bool:
    """Whether a model does not stand in the way of readiness: not asked for, or READY (also after a failed reload)."""
    return not model.wanted or any(state == READY for state, _ in model.versions.values())
