"""Who decides what is loaded: everything at start, a scan of the repository, or clients."""

from __future__ import annotations

import contextlib
import difflib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from naiad.repository.index import TWICE, scan
from naiad.repository.local import Snapshot, snapshot
from naiad.server.lanes import Lanes
from naiad.server.models import Models, Refused
from naiad.server.states import States

log = logging.getLogger("naiad.control_mode")

T = TypeVar("T")

SETTLE_SECS = 2.0
"""A change is looked at again after this time, or after the poll interval if that is shorter."""
INDEX_SECS = 1.0


def load_quietly(models: Models, name: str) -> bool:
    """Loads a model; whether it became READY. Why not stands in the log and the index."""
    try:
        models.load(name)
    except Refused:
        return False
    except Exception:
        log.exception("loading '%s' failed unexpectedly", name, extra={"fields": {"model": name}})
        return False
    return True


def load_all(models: Models, names: Sequence[str], lanes: Lanes) -> bool:
    """Loads the models side by side; whether all of them became READY."""
    loading = [lanes.submit(name, partial(load_quietly, models, name)) for name in names]
    return all([load.result() for load in loading])


def names_at_start(mode: str, asked: Sequence[str], repositories: Sequence[Path], states: States) -> list[str]:
    """Which models the start loads; those of the repositories that it does not are known to the index."""
    found = look(repositories, states)
    if mode != "explicit" or list(asked) == ["*"]:
        return list(found)
    for name in asked:
        if name not in found:
            _say_missing(name, list(found))
    return list(dict.fromkeys(asked))


def _say_missing(name: str, there: Sequence[str]) -> None:
    """The record of a model that was asked for and is nowhere: its load fails without one, as a client's does."""
    near = difflib.get_close_matches(name, there, n=3) or there[:5]
    fields = {
        "model": name,
        "stage": "repository",
        "code": "PATH_NOT_FOUND",
        "cause": "no model repository has a model of this name",
        "fix": f"there is {', '.join(near)}" if near else "the model repositories are empty",
    }
    log.error("failed to load '%s'", name, extra={"fields": fields})


def look(repositories: Sequence[Path], states: States) -> Mapping[str, str]:
    """Tells the index what lies in the repositories.

    Of what may be wrong with a directory only this needs no load to be said: it lies in two.
    """
    found = {name: TWICE if model.problem == TWICE else "" for name, model in scan(repositories).items()}
    states.look(found)
    return found


class Repeated:
    """A thread that looks at the repositories now and then; nothing it meets ends it."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._unreadable: dict[Path, str] = {}

    def start(self) -> None:
        """Starts looking."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._interval()):
            try:
                self._once()
            except Exception:
                log.exception("looking at the model repository failed unexpectedly")

    def _read(self, repository: Path, reader: Callable[[Path], T]) -> T | None:
        """What `reader` makes of a repository; None, said once, while it cannot be read."""
        try:
            result = reader(repository)
        except OSError as error:
            text = error.strerror or str(error)
            if self._unreadable.get(repository) != text:
                self._unreadable[repository] = text
                log.warning("the model repository cannot be read: %s", text)
            return None
        if self._unreadable.pop(repository, None):
            log.info("the model repository can be read again")
        return result

    def _interval(self) -> float:
        raise NotImplementedError

    def _once(self) -> None:
        raise NotImplementedError


class IndexWatch(Repeated):
    """Explicit mode: the index names models that were put into or taken out of a repository (W66)."""

    def __init__(self, states: States, repositories: Sequence[Path]) -> None:
        super().__init__("index")
        self._states = states
        self._repositories = repositories
        self._seen: list[int | None] = []

    def _interval(self) -> float:
        return INDEX_SECS

    def _once(self) -> None:
        now = [self._read(repository, lambda path: path.stat().st_mtime_ns) for repository in self._repositories]
        if now != self._seen and None not in now:
            with contextlib.suppress(OSError):  # gone since: the next look says so
                look(self._repositories, self._states)
                self._seen = now


Files = tuple[Snapshot, ...]
"""The files of a model, in each repository that has it."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a look at the repositories calls for."""

    load: list[str]
    unload: list[str]
    settling: list[str]
    """Models that changed and may still be changing."""


class Changes:
    """Compares looks at the repositories: a change counts once two looks in a row saw the same."""

    def __init__(self, seen: Mapping[str, Files]) -> None:
        self._acted = dict(seen)
        self._last = dict(seen)

    def look(self, now: Mapping[str, Files]) -> Step:
        """The step for this look; each change is in one step only."""
        step = Step([], [], [])
        for name in sorted({*now, *self._acted}):
            files = now.get(name)
            if files == self._acted.get(name):
                continue
            if files != self._last.get(name):
                step.settling.append(name)
            elif files is None:
                del self._acted[name]
                step.unload.append(name)
            else:
                self._acted[name] = files
                step.load.append(name)
        self._last = dict(now)
        return step


class Poller(Repeated):
    """Poll mode: loads what is new or changed, unloads what is gone."""

    def __init__(
        self, models: Models, lanes: Lanes, states: States, *, repositories: Sequence[Path], seconds: float
    ) -> None:
        super().__init__("poll")
        self._models = models
        self._states = states
        self._lanes = lanes
        self._repositories = repositories
        self._seconds = seconds
        self._known: dict[Path, dict[str, Snapshot]] = {}
        self._changes = Changes(self._look())  # what is there now is loaded by the start
        self._settling = False

    def _look(self) -> dict[str, Files]:
        """The files of each model; a repository that cannot be read is taken as it was, so it unloads nothing."""
        for repository in self._repositories:
            seen = self._read(repository, _snapshots)
            if seen is not None:
                self._known[repository] = seen
        files: dict[str, Files] = {}
        for known in self._known.values():
            for name, found in known.items():
                files[name] = (*files.get(name, ()), found)
        return files

    def _interval(self) -> float:
        return min(self._seconds, SETTLE_SECS) if self._settling else self._seconds

    def _once(self) -> None:
        step = self._changes.look(self._look())
        self._settling = bool(step.settling)
        for name in step.unload:
            self._lanes.submit(name, partial(self._unload, name))
        for name in step.load:
            # It does not wait: a model that loads slowly does not hold up the others.
            self._lanes.submit(name, partial(load_quietly, self._models, name))

    def _unload(self, name: str) -> None:
        self._models.unload(name)
        self._states.gone(name)


def _snapshots(repository: Path) -> dict[str, Snapshot]:
    return {name: snapshot(model.path) for name, model in scan([repository]).items()}
