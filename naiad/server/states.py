"""The state of every model version as the repository index shows it, and whether the server is ready (W9, W66)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

READY, LOADING, UNLOADING, UNAVAILABLE = "READY", "LOADING", "UNLOADING", "UNAVAILABLE"


@dataclass(slots=True)
class _Version:
    state: str
    reason: str = ""
    serving: bool = False
    """Published: if it is UNAVAILABLE all the same, its workers are down."""


@dataclass(slots=True)
class _Model:
    versions: dict[int, _Version] = field(default_factory=dict)
    wanted: bool = False
    problem: str = ""
    """What is wrong with it as it lies in the repositories."""
    failed: str = ""
    """Why its last load failed as a whole."""
    gone: bool = False
    """No longer in a repository."""


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

    def look(self, found: Mapping[str, str]) -> None:
        """The models that lie in the repositories, each with what is wrong with it or "" (W66).

        Those that are gone are forgotten if nobody asked for them or loaded them.
        """
        with self._lock:
            for name, problem in found.items():
                self._models.setdefault(name, _Model()).problem = problem
            for name in [name for name in self._models if name not in found]:
                if not self._models[name].versions and not self._models[name].wanted:
                    del self._models[name]
            self._publish()

    def gone(self, name: str) -> None:
        """A model that is no longer in the repository: forgotten once its last version is unloaded."""
        with self._lock:
            model = self._models.get(name)
            if model is not None:
                model.gone = True
                self._drop_gone(name, model)
                self._publish()

    def _drop_gone(self, name: str, model: _Model) -> None:
        if model.gone and not any(version.state == UNLOADING for version in model.versions.values()):
            del self._models[name]

    def want(self, name: str, *, wanted: bool) -> None:
        """Whether somebody asked for the model: strict readiness counts it."""
        with self._lock:
            if wanted or name in self._models:
                model = self._models.setdefault(name, _Model())
                model.wanted, model.failed, model.gone = wanted, "", False
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
        """The state of a version whose load or unload goes on."""
        with self._lock:
            self._models.setdefault(name, _Model()).versions[version] = _Version(state, reason, state == READY)
            self._publish()

    def impair(self, name: str, version: int, reason: str, *, down: bool) -> None:
        """Workers of a published version are gone (`down`: all of them), or there again (no reason)."""
        with self._lock:
            state = UNAVAILABLE if down else READY
            self._models.setdefault(name, _Model()).versions[version] = _Version(state, reason, serving=True)
            self._publish()

    def kept(self, name: str, version: int, reason: str) -> None:
        """A reload of a version failed, and what served before serves on (W69): the index says why."""
        with self._lock:
            self._models[name].versions[version].reason = f"reload failed: {reason}"
            self._publish()

    def unloaded(self, name: str, version: int) -> None:
        """The last worker of an unloaded version is gone, unless it is being loaded again already."""
        with self._lock:
            model = self._models.get(name)
            if model is not None and version in model.versions and model.versions[version].state == UNLOADING:
                model.versions[version] = _Version(UNAVAILABLE, "unloaded")
                self._drop_gone(name, model)
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
            return model is not None and any(version.state == READY for version in model.versions.values())

    def _publish(self) -> None:
        rows = [row for name, model in sorted(self._models.items()) for row in _rows(name, model)]
        self._tell(json.dumps(rows).encode())
        whole = not self._strict or all(map(_whole, self._models.values()))
        self._tell_ready(self._started and not self._closed and whole)


def _rows(name: str, model: _Model) -> list[dict[str, object]]:
    if not model.versions:
        reason = model.failed or model.problem
        return [{"name": name, "state": UNAVAILABLE, "reason": reason} if reason else {"name": name}]
    rows = []
    for number, version in sorted(model.versions.items()):
        row: dict[str, object] = {"name": name, "version": number, "state": version.state}
        reason = version.reason
        if model.failed and version.serving:
            reason = reason or f"reload failed: {model.failed}"
        elif model.failed and version.state == UNAVAILABLE:
            reason = model.failed
        if reason:
            row["reason"] = reason
        rows.append(row)
    return rows


def _whole(model: _Model) -> bool:
    """Whether a model does not stand in the way of readiness: not asked for, or serving with every published version.

    A failed reload does not count while what served before serves on.
    """
    versions = model.versions.values()
    if not model.wanted:
        return True
    down = any(version.serving and version.state == UNAVAILABLE for version in versions)
    return not down and any(version.state == READY for version in versions)
