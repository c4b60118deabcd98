"""Brings environments to what is wanted: built, reported; or removed and gone. Builds run beside the loop."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from naiad.control.environments.store import EnvironmentStore, Outcome
from naiad.control.reconcile import Busy
from naiad.environments.errors import EnvironmentBusy, NoSuchEnvironment, Stopped
from naiad.environments.lock import Lock
from naiad.environments.reach import Reach
from naiad.environments.specification import Specification
from naiad.environments.store import READY, Named
from naiad.environments.store import Store as Builds
from naiad.errors import NaiadError

_log = logging.getLogger("naiad.control")
_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An environment as the store has it."""

    name: str
    generation: int
    observed_generation: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class Build:
    """Build it, or build it anew."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove what was built, then forget it."""


def plan(wanted: Wanted, *, not_before: float, now: float) -> Build | Remove | None:
    """The one next thing to do for an environment; None if it is as wanted, or has to wait."""
    if now < not_before:
        return None
    if wanted.deleted:
        return Remove()
    return Build() if wanted.observed_generation < wanted.generation else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the reconciler works with."""

    environments: EnvironmentStore
    builds: Builds
    reach: Reach
    pinned: Callable[[], frozenset[str]]
    """Digests (or their beginnings) that a service version holds to."""
    clock: Callable[[], float] = time.monotonic


class EnvironmentReconciler:
    """Observes, plans and acts for all environments."""

    def __init__(self, parts: Parts, busy: Busy) -> None:
        self._parts = parts
        self._busy = busy
        self._not_before: dict[str, float] = {}
        self._building: dict[str, int] = {}
        """Generations that are being built."""

    def step(self) -> None:
        """One turn over all environments; builds run beside it, one an environment."""
        busy = self._busy.names()
        for row in self._parts.environments.list():
            if row.name in busy:
                if row.deleted_at is not None or row.generation > self._building.get(row.name, row.generation):
                    self._parts.builds.stop(row.name)  # nobody waits for what is being built any more
                continue
            wanted = Wanted(
                name=row.name,
                generation=row.generation,
                observed_generation=row.observed_generation,
                deleted=row.deleted_at is not None,
            )
            action = plan(wanted, not_before=self._not_before.get(row.name, 0.0), now=self._parts.clock())
            if isinstance(action, Remove):
                self._busy.run(row.name, lambda w=wanted: self._remove(w))  # type: ignore[misc]
            elif isinstance(action, Build):
                self._building[row.name] = row.generation
                self._busy.run(row.name, lambda w=wanted, f=row.fields: self._build(w, f))  # type: ignore[misc]

    def _build(self, wanted: Wanted, fields: dict[str, Any]) -> None:
        name, report = wanted.name, self._parts.environments.report
        try:
            self._parts.builds.put(name, specification_of(fields))
            report(name, wanted.generation, Outcome(state="BUILDING"))
            parts = self._parts
            named = parts.builds.build(name, offline=fields["offline"], pinned=parts.pinned(), reach=parts.reach)
            report(name, wanted.generation, Outcome(state=READY, built=self._built(named), observed=True))
        except Stopped:
            return  # the platform ends and the next one builds it, or something else is wanted by now
        except EnvironmentBusy:
            self._not_before[name] = self._parts.clock() + _WAIT_SECONDS
        except Exception as error:
            self._failed(wanted, error)
            if not isinstance(error, (NaiadError, OSError)):
                raise

    def _failed(self, wanted: Wanted, error: Exception) -> None:
        words = self._parts.builds.words_of(error)
        built = None
        with contextlib.suppress(NoSuchEnvironment):
            named = self._parts.builds.get(wanted.name)
            built = self._built(named) if named.current else None
        outcome = Outcome(state=READY if built else "FAILED", problem=words, built=built, observed=True)
        self._parts.environments.report(wanted.name, wanted.generation, outcome)
        _log.warning("environment '%s' was not built: %s", wanted.name, words)

    def _built(self, named: Named) -> dict[str, Any]:
        current = named.current
        if current is None:
            raise RuntimeError(f"environment '{named.name}' was built and has no build")
        packages = [asdict(package) for package in Lock(self._parts.builds.lock_text(named.name)).packages()]
        fields = {"python": current.python, "digest": current.digest, "built_at": current.built_at}
        return {**fields, "packages": packages}

    def _remove(self, wanted: Wanted) -> None:
        try:
            self._parts.builds.remove(wanted.name)
        except NoSuchEnvironment:
            pass
        except EnvironmentBusy:  # a worker of a deleted service is still ending
            self._not_before[wanted.name] = self._parts.clock() + _WAIT_SECONDS
            return
        self._parts.environments.forget(wanted.name)
        self._not_before.pop(wanted.name, None)


def specification_of(fields: dict[str, Any]) -> Specification:
    """What the room of environments is asked to build for stored fields."""
    return Specification(
        manager=fields["manager"],
        text=fields["spec"],
        python=fields["python"] or "",
        index_url=fields["index_url"] or "",
        extra_index_urls=tuple(fields["extra_index_urls"]),
        find_links=tuple(fields["find_links"]),
        channels=tuple(fields["channels"]),
        allow_sdist=fields["allow_sdist"],
    )
