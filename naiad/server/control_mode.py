"""Who decides what is loaded: everything at start, a scan of the repository, or clients."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from naiad.repository.index import scan
from naiad.repository.local import Snapshot, snapshot
from naiad.server.models import Models, Refused
from naiad.server.states import States

log = logging.getLogger("naiad.control_mode")


def load_all(models: Models, names: Sequence[str], pool: Executor) -> bool:
    """Loads the models side by side; whether all of them became READY."""

    def attempt(name: str) -> bool:
        try:
            models.load(name)
        except Refused:
            return False  # it is in the log and the index
        except Exception:
            log.exception("loading '%s' failed unexpectedly", name, extra={"fields": {"model": name}})
            return False
        return True

    return all(list(pool.map(attempt, names)))


def names_at_start(mode: str, asked: Sequence[str], repositories: Sequence[Path], states: States) -> list[str]:
    """Which models the start loads; those of the repositories that it does not are known to the index."""
    found = list(scan(repositories))
    for name in found:
        states.know(name)
    if mode != "explicit":
        return found
    if list(asked) == ["*"]:
        return found
    return list(dict.fromkeys(asked))


class Poller:
    """Scans the repositories and loads what is new or changed, unloads what is gone."""

    def __init__(self, models: Models, states: States, *, repositories: Sequence[Path], seconds: float) -> None:
        self._models = models
        self._states = states
        self._repositories = repositories
        self._seconds = seconds
        self._seen: dict[str, Snapshot] = {}
        self._changing: dict[str, Snapshot] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)

    def start(self) -> None:
        """Takes what is there now as known, then scans."""
        self._seen = self._look()
        self._thread.start()

    def stop(self) -> None:
        """Ends the scanning."""
        self._stop.set()

    def _look(self) -> dict[str, Snapshot]:
        return {name: snapshot(model.path) for name, model in scan(self._repositories).items()}

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._scan()
            except OSError as error:
                # One unreadable moment must not end polling.
                log.warning("scanning the model repository: %s", error)
            except Exception:
                log.exception("scanning the model repository failed unexpectedly")

    def _scan(self) -> None:
        there = self._look()
        for name in [name for name in self._seen if name not in there]:
            del self._seen[name]
            self._models.unload(name)
            self._states.forget(name)
        for name, files in there.items():
            if self._seen.get(name) == files:
                self._changing.pop(name, None)
                continue
            # A file that is still being copied changes again: load what two scans saw alike.
            if name in self._seen and self._changing.get(name) != files:
                self._changing[name] = files
                continue
            self._seen[name] = files
            self._changing.pop(name, None)
            try:
                self._models.load(name)
            except Refused:
                pass  # it is in the log and the index; it is tried again when its files change
