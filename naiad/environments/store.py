"""Named environments on the disk: what each shall hold, what was built of it, and who uses it.

A folder holds `named/NAME/` (specification, state, lock, log), `builds/KEY/` (the environments themselves, named by
lock and Python version, shared by all names whose locks are equal) and `archives/DIGEST/` (extracted archives). Locks
of the file system keep processes apart: one builds a name at a time, and what a server holds is not removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from naiad.environments import conda, interpreters
from naiad.environments.build import build as build_venv
from naiad.environments.commands import Running, Tools
from naiad.environments.errors import (
    BuildFailed,
    EnvironmentBusy,
    EnvironmentExists,
    NoSuchEnvironment,
    WrongSpecification,
)
from naiad.environments.interpreters import Interpreter
from naiad.environments.leases import Lease, exclusive
from naiad.environments.lock import Lock, resolve, with_numpy
from naiad.environments.names import is_name
from naiad.environments.packed import KEPT_SECONDS, Archives
from naiad.environments.reach import Reach
from naiad.environments.shelf import Shelf, read_json, write_json
from naiad.environments.specification import Specification, check
from naiad.errors import NaiadError

PENDING, BUILDING, READY, FAILED = "PENDING", "BUILDING", "READY", "FAILED"
_KEPT_BUILDS = 3
_PATIENCE_SECONDS = 1.0
"""Whoever only looks whether a build runs holds its lock for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An environment that was built."""

    key: str
    digest: str
    """Of its lock."""
    python: str
    """Version of its interpreter."""
    built_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A named environment as it is now."""

    name: str
    specification: Specification
    state: str
    """READY while a good build exists, whatever became of later tries."""
    problem: str = ""
    """Why the last build failed, in the resolver's words."""
    builds: tuple[Build, ...] = field(default=())
    """The newest first."""

    @property
    def current(self) -> Build | None:
        """The build in use."""
        return self.builds[0] if self.builds else None


class Store:
    """The environments below one folder; safe to be used by several processes."""

    def __init__(self, root: Path, *, environ: Mapping[str, str] | None = None) -> None:
        self.root = root
        self._named = root / "named"
        self._running: dict[str, Running] = {}
        self._guard = threading.Lock()
        self._ended = False
        self._builds = Shelf(root / "builds")
        self.archives = Archives(root / "archives")
        self._environ = dict(os.environ) if environ is None else dict(environ)

    # -- names ------------------------------------------------------------------------------------------------------

    def create(self, name: str, specification: Specification) -> Named:
        """Wants an environment; the same again answers what exists. Builds nothing yet."""
        if not is_name(name):
            text = "expected 2 to 63 lower-case letters, digits and '-', beginning with a letter"
            raise WrongSpecification("name", f"{text}, got '{name[:80]}'")
        check(specification)
        with contextlib.suppress(NoSuchEnvironment):
            existing = self.get(name)
            if existing.specification == specification:
                return existing
            if existing.state != FAILED:  # else there is nothing to lose, and its file was mended
                raise EnvironmentExists(f"environment '{name}' exists and is made of something else; remove it first")
        return self.put(name, specification)

    def put(self, name: str, specification: Specification) -> Named:
        """Wants an environment to be made of this from its next build on; earlier builds stay in use."""
        folder = self._named / name
        for place in (self._named.parent, self._named, folder):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            write_json(folder / "specification.json", specification.document())
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()  # if it is new, and so empty
            raise
        (folder / "build.log").unlink(missing_ok=True)  # it was about something else
        return self.get(name)

    def get(self, name: str) -> Named:
        """One environment; raises `NoSuchEnvironment` that says what there is."""
        folder = self._named / name
        specification = read_json(folder / "specification.json") if is_name(name) else None
        if specification is None:
            there = ", ".join(f"'{other}'" for other in self._names()) or "none"
            raise NoSuchEnvironment(f"there is no environment '{name[:80]}'; there is {there}")
        state = read_json(folder / "state.json") or {}
        builds = tuple(Build(**row) for row in state.get("builds", ()) if self._builds.is_whole(row["key"]))
        now = self._state(folder, state, bool(builds))
        return Named(
            name=name,
            specification=Specification.of_document(specification),
            state=now,
            problem="" if now == BUILDING else state.get("problem", ""),
            builds=builds,
        )

    def all(self) -> list[Named]:
        """All of them, by name."""
        found = []
        for name in self._names():
            with contextlib.suppress(NoSuchEnvironment):  # it was removed meanwhile
                found.append(self.get(name))
        return found

    def log(self, name: str) -> Path:
        """The log of the last build, or of the one that runs."""
        self.get(name)
        return self.log_to_be(name)

    def log_to_be(self, name: str) -> Path:
        """Where the log of a name's first build will lie."""
        return self._named / name / "build.log"

    def lock_text(self, name: str) -> str:
        """The lock file of the build in use; "" where there is none."""
        current = self.get(name).current
        if current is None:
            return ""
        return (self._builds.root / f"{current.key}.lock").read_text("utf-8")

    def remove(self, name: str) -> None:
        """Removes a name, and its builds unless another name has them; raises `EnvironmentBusy` where one is in use."""
        named = self.get(name)
        folder = self._named / name
        with self._alone(name):
            for build in named.builds:
                if not self._drop(build.key, of=name) and not self._shared(build.key, name):
                    text = f"environment '{name}' is in use by a running server; unload its models first"
                    raise EnvironmentBusy(text)
            shutil.rmtree(folder)
        self.tidy()

    # -- builds -----------------------------------------------------------------------------------------------------

    def stop(self, name: str = "") -> None:
        """Ends this process' build of a name that runs; without a name all of them, and those that would begin."""
        with self._guard:
            self._ended = self._ended or not name
            for building, running in self._running.items():
                if name in ("", building):
                    running.stop()

    @contextlib.contextmanager
    def _stoppable(self, name: str) -> Iterator[Running]:
        running = Running()
        with self._guard:
            self._running[name] = running
            if self._ended:
                running.stop()
        try:
            yield running
        finally:
            with self._guard:
                del self._running[name]

    def build(
        self,
        name: str,
        *,
        offline: bool = False,
        pinned: Collection[str] = (),
        reach: Reach | None = None,
    ) -> Named:
        """Builds a name anew; raises `BuildFailed`, and then the last good build stays in use.

        Where the lock is what it was, nothing is built. Older builds go after a while, those apart whose digest begins
        with one of `pinned`. `reach` says which hosts it may be sent to.
        """
        self.get(name)
        folder = self._named / name
        with self._alone(name), self._stoppable(name) as running:
            named = self.get(name)
            log = folder / "build.log"
            log.unlink(missing_ok=True)  # whoever reads the old one sees that this is another
            log.touch(mode=0o600)
            self._note(folder, named, problem="", building=True)
            try:
                tools = Tools(log=log, offline=offline, environ=self._environ, running=running, reach=reach)
                if reach is not None and not offline:
                    reach.check(named.specification)
                build, lease = self._built(named, tools)
            except (NaiadError, OSError) as error:
                known = isinstance(error, BuildFailed)  # then the log has its words
                with contextlib.suppress(OSError), log.open("ab") as stream:  # a full disk may be why it failed
                    stream.write(b"FAILED\n" if known else f"FAILED: {self.words_of(error)}\n".encode())
                with contextlib.suppress(OSError):
                    self._note(folder, named, problem=self.words_of(error))
                raise
            with log.open("ab") as stream:
                stream.write(b"READY\n")
            older = [other for other in named.builds if other.key != build.key]
            kept = [other for other in older[_KEPT_BUILDS - 1 :] if other.digest.startswith(tuple(pinned))]
            kept = [*older[: _KEPT_BUILDS - 1], *kept]
            with lease:
                self._note(folder, dataclasses.replace(named, builds=(build, *kept)), problem="")
        self.tidy()
        return self.get(name)

    def words_of(self, error: Exception) -> str:
        """What a failed build says to those who asked for it: not where on this machine it lies (H1)."""
        if isinstance(error, OSError):
            return error.strerror or type(error).__name__
        return self.shown(error.words if isinstance(error, BuildFailed) else str(error))

    def shown(self, words: str) -> str:
        """Words of a tool without where on this machine the store lies."""
        return words.replace(f"{self._builds.root}/", "").replace(f"{self._named}/", "")

    def _built(self, named: Named, tools: Tools) -> tuple[Build, Lease]:
        specification = named.specification
        check(specification)  # it may be older than a rule
        if specification.manager == "CONDA":
            plan = conda.solve(specification, tools)
            return self._kept(plan.lock, plan.python, lambda place: conda.install(plan, place, tools), tools)
        interpreter = interpreters.find(specification.python)
        lock = resolve(with_numpy(specification.text), specification, interpreter, tools)
        make = _maker(specification, lock, interpreter, tools)
        return self._kept(lock, interpreter.version, make, tools)

    def _kept(self, lock: Lock, version: str, make: Callable[[Path], None], tools: Tools) -> tuple[Build, Lease]:
        """The build of a lock under a Python: the one that is there, or made now; held until a name has it."""
        key = f"{lock.digest[:32]}-py{version}"

        def made(place: Path) -> dict[str, Any]:
            make(place)
            (self._builds.root / f"{key}.lock").write_text(lock.text, "utf-8")
            return {"digest": lock.digest, "python": version}

        told: list[str] = []

        def give_up() -> bool:
            if not told:
                told.append("the same is being made by another build, for which this one waits\n")
                with tools.log.open("ab") as stream:
                    stream.write(told[0].encode())
            return tools.running.stopped

        lease, new = self._builds.have(key, made, give_up=give_up)
        if not new:
            with tools.log.open("ab") as stream:
                stream.write(b"the lock is unchanged: the build that is there is taken\n")
        at = datetime.now(UTC).replace(microsecond=0).isoformat()
        return Build(key=key, digest=lock.digest, python=version, built_at=at), lease

    def tidy(self) -> None:
        """Removes builds that no name has and nobody uses, old archives, and what killed processes have left."""
        self.archives.collect(older_than=KEPT_SECONDS)
        self._builds.sweep()
        states = [self._named / name / "state.json" for name in self._names()]
        if any(path.exists() and read_json(path) is None for path in states):
            return  # it may have any of them
        for key in self._builds.keys():
            if not self._shared(key, ""):
                self._drop(key)

    def lease(self, name: str, digest: str = "") -> tuple[Path, Lease]:
        """The folder of the build in use, or of the one with this digest, held until the lease is dropped."""
        named = self.get(name)
        for build in named.builds:
            if build.digest.startswith(digest):
                lease = self._builds.hold(build.key)
                if lease is not None:
                    return self._builds.root / build.key, lease
        if digest:
            raise NoSuchEnvironment(f"environment '{name}' has no build with the lock {digest[:16]}")
        problem = named.problem or "it was not built yet"
        raise NoSuchEnvironment(f"environment '{name}': expected {READY}, got {named.state}: {problem}")

    # -- files ------------------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._named.iterdir() if (path / "specification.json").is_file())
        except FileNotFoundError:
            return []

    def _state(self, folder: Path, state: Mapping[str, Any], built: bool) -> str:
        if state.get("building"):
            # Whoever was building holds the lock; one that died holds nothing.
            with exclusive(folder / "lock", wait_seconds=0) as alone:
                if not alone:
                    return BUILDING
            return READY if built else FAILED
        if built:
            return READY
        return FAILED if state.get("problem") else PENDING

    def _note(self, folder: Path, named: Named, *, problem: str, building: bool = False) -> None:
        builds = [dataclasses.asdict(build) for build in named.builds]
        stopped = "the build was interrupted; build it again"
        write_json(
            folder / "state.json",
            {"builds": builds, "problem": stopped if building else problem, "building": building},
        )

    def _shared(self, key: str, name: str) -> bool:
        return any(build.key == key for other in self.all() if other.name != name for build in other.builds)

    def _drop(self, key: str, *, of: str = "") -> bool:
        """Removes a build; False if somebody uses it, or another name has it."""
        dropped = self._builds.drop(key, unless=lambda: self._shared(key, of))
        if dropped:
            (self._builds.root / f"{key}.lock").unlink(missing_ok=True)
        return dropped

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with exclusive(self._named / name / "lock", wait_seconds=_PATIENCE_SECONDS) as alone:
            if not alone:
                raise EnvironmentBusy(f"environment '{name}' is being built; see its log")
            yield


def _maker(specification: Specification, lock: Lock, interpreter: Interpreter, tools: Tools) -> Callable[[Path], None]:
    return lambda place: build_venv(specification, lock, interpreter, destination=place, tools=tools)
