"""Where `naiad env` works: on a platform through its API, or on a folder of environments alone."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from naiad.cli.context import connect
from naiad.cli.output import Exit, fail, progress

if TYPE_CHECKING:
    from naiad.control.environments.schema import Environment, EnvironmentFields
    from naiad.environments.packed import Extracted
    from naiad.environments.store import Named, Store
    from naiad.sdk.client import Client

_LOOK_SECONDS = 0.2
_ARCHIVE = "archive/"
"""Before the digest of an extracted archive, which has no name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What `naiad env create` was asked for."""

    manager: str
    text: str
    python: str | None
    index_url: str | None
    extra_index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    channels: tuple[str, ...]
    allow_sdist: bool
    offline: bool


class Place(Protocol):
    """What the commands ask of either; environments are JSON objects."""

    def create(self, name: str, asked: Asked, *, wait: bool) -> dict[str, Any]:
        """Makes one and builds it."""

    def rebuild(self, name: str, given: tuple[str, str] | None, *, offline: bool, wait: bool) -> dict[str, Any]:
        """Builds one anew, perhaps of another (manager, text)."""

    def all(self) -> list[dict[str, Any]]:
        """All of them."""

    def get(self, name: str) -> dict[str, Any]:
        """One of them."""

    def log(self, name: str, *, follow: bool) -> Iterator[str]:
        """Lines of the last build's log."""

    def lock(self, name: str) -> str:
        """The lock file of the build in use."""

    def remove(self, name: str) -> None:
        """Removes one."""


@contextlib.contextmanager
def open_place(folder: Path | None, state: str | None) -> Iterator[Place]:
    """The folder, or the platform that the state, the environment or the last `naiad up` names."""
    if folder is not None:
        from naiad.environments.store import Store

        yield FolderPlace(Store(folder.expanduser().resolve()))
        return
    with connect(state) as client:
        yield PlatformPlace(client)


class FolderPlace:
    """A folder that `naiad serve` reads; builds run in this process."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, name: str, asked: Asked, *, wait: bool) -> dict[str, Any]:
        """Makes one and builds it; whether to wait is no question without a platform."""
        from naiad.environments.errors import EnvironmentExists, WrongSpecification
        from naiad.environments.specification import Specification

        fields = {key: value or "" if value is None else value for key, value in dataclasses.asdict(asked).items()}
        offline = bool(fields.pop("offline"))
        try:
            self._store.create(name, Specification.of_document(fields))
        except WrongSpecification as error:
            fail(str(error), Exit.USAGE)
        except EnvironmentExists:
            _taken(name)
        return self._built(name, offline=offline)

    def rebuild(self, name: str, given: tuple[str, str] | None, *, offline: bool, wait: bool) -> dict[str, Any]:
        """Builds one anew, perhaps of another text."""
        from naiad.environments.specification import check

        specification = self._idle(name).specification
        if given is not None:
            specification = dataclasses.replace(specification, manager=given[0], text=given[1])
            check(specification)
            self._store.put(name, specification)
        return self._built(name, offline=offline)

    def all(self) -> list[dict[str, Any]]:
        """All of them."""
        archives = [_extracted(archive) for archive in self._store.archives.all()]
        return [*(self._document(named) for named in self._store.all()), *archives]

    def get(self, name: str) -> dict[str, Any]:
        """One of them."""
        if name.startswith(_ARCHIVE):
            return _extracted(self._store.archives.find(name.removeprefix(_ARCHIVE)))
        return self._document(self._store.get(name))

    def log(self, name: str, *, follow: bool) -> Iterator[str]:
        """Lines of the last build's log."""
        from naiad.environments.store import BUILDING

        path = self._store.log(name)
        if not path.exists():  # it was not built yet
            return
        ended = not follow
        with path.open(encoding="utf-8", errors="replace") as stream:
            while True:
                yield from (line.rstrip("\n") for line in stream)
                if ended:
                    return
                ended = self._store.get(name).state != BUILDING
                if not ended:
                    time.sleep(_LOOK_SECONDS)

    def lock(self, name: str) -> str:
        """The lock file of the build in use."""
        return self._store.lock_text(name)

    def remove(self, name: str) -> None:
        """Removes one."""
        if name.startswith(_ARCHIVE):
            self._store.archives.remove(name.removeprefix(_ARCHIVE))
        else:
            self._store.remove(name)

    def _idle(self, name: str) -> Named:
        """The environment, unless it is being built: its log is of that build, and its file too."""
        from naiad.environments.store import BUILDING

        named = self._store.get(name)
        if named.state == BUILDING:
            fail(f"environment '{name}' is being built; see 'naiad env logs {name} --follow'")
        return named

    def _built(self, name: str, *, offline: bool) -> dict[str, Any]:
        """Builds in a thread, shows its log meanwhile."""
        from naiad.environments.errors import BuildFailed

        self._idle(name)
        errors: list[Exception] = []
        done = threading.Event()  # a join that Ctrl-C interrupts takes the thread for ended, in Python 3.11 and 3.12

        def build() -> None:
            try:
                self._store.build(name, offline=offline)
            except Exception as error:
                errors.append(error)
            finally:
                done.set()

        threading.Thread(target=build).start()
        try:
            self._show(name, done)
        except KeyboardInterrupt:
            progress("stopping the build; what was made of it is removed ...")
            self._store.stop()
            raise
        finally:
            done.wait()
        if errors and isinstance(errors[0], OSError):
            why = errors[0].strerror or errors[0]
            fail(f"environment '{name}' could not be built in '{self._store.root}': {why}")
        if errors and not isinstance(errors[0], BuildFailed):
            raise errors[0]
        return self.get(name)

    def _show(self, name: str, done: threading.Event) -> None:
        position = 0
        path = self._store.log(name)
        last = False
        while not last:
            last = done.wait(_LOOK_SECONDS)
            text = path.read_bytes() if path.exists() else b""
            end = text.rfind(b"\n") + 1
            for line in text[position:end].decode("utf-8", "replace").splitlines():
                progress(f"  {line}")
            position = max(position, end)

    def _document(self, named: Named) -> dict[str, Any]:
        from naiad.environments.lock import Lock

        current = named.current
        document: dict[str, Any] = {"name": named.name, "manager": named.specification.manager, "used_by": []}
        document |= {"state": named.state, "problem": named.problem or None}
        if current is None:
            return document | {"python": None, "digest": None, "built_at": None, "packages": []}
        packages = [dataclasses.asdict(package) for package in Lock(self._store.lock_text(named.name)).packages()]
        built = {"python": current.python, "digest": current.digest, "built_at": current.built_at}
        return document | built | {"packages": packages}


def _extracted(archive: Extracted) -> dict[str, Any]:
    """What a model brought as an archive, beside the named environments."""
    used = datetime.fromtimestamp(archive.last_used, UTC).replace(microsecond=0).isoformat()
    return {
        "name": f"{_ARCHIVE}{archive.digest[:12]}",
        "manager": "ARCHIVE",
        "archive": archive.archive,
        "state": "READY",
        "problem": None,
        "used_by": ["a server"] if archive.used else [],
        "python": None,
        "digest": archive.digest,
        "last_used": used,
        "built_at": None,
        "packages": [],
    }


class PlatformPlace:
    """A platform: it builds, this process watches."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, name: str, asked: Asked, *, wait: bool) -> dict[str, Any]:
        """Wants one; shows the build."""
        from naiad.sdk.errors import ApiError

        document = {key: value for key, value in dataclasses.asdict(asked).items() if value is not None}
        document["spec"] = document.pop("text")
        fields = _fields({"name": name, **document})
        try:
            self._client.create_environment(fields)
        except ApiError as error:
            if error.code != "ALREADY_EXISTS":
                raise
            if self._client.environment(name).status.state != "FAILED":
                _taken(name)
            self._client.apply_environment(fields)  # there is nothing to lose, and its file was mended
        return self._watched(name) if wait else self.get(name)

    def rebuild(self, name: str, given: tuple[str, str] | None, *, offline: bool, wait: bool) -> dict[str, Any]:
        """Wants one built anew, perhaps of another text; shows the build."""
        before = self._client.environment(name)
        document = {key: getattr(before, key) for key in type(_fields({"name": name, "spec": ""})).model_fields}
        if given is not None:
            document |= {"manager": given[0], "spec": given[1]}
        fields = _fields(document | {"offline": offline or document["offline"]})
        after = self._client.apply_environment(fields)
        if after.generation == before.generation:
            self._client.rebuild_environment(name)
        return self._watched(name) if wait else self.get(name)

    def all(self) -> list[dict[str, Any]]:
        """All of them."""
        return [_flat(environment) for environment in self._client.environments()]

    def get(self, name: str) -> dict[str, Any]:
        """One of them."""
        return _flat(self._client.environment(name))

    def log(self, name: str, *, follow: bool) -> Iterator[str]:
        """Lines of the last build's log."""
        return self._client.environment_logs(name, tail=100_000, follow=follow)

    def lock(self, name: str) -> str:
        """The lock file of the build in use."""
        return self._client.environment_lock(name)

    def remove(self, name: str) -> None:
        """Removes one, and returns when it is gone."""
        from naiad.sdk.errors import Missing

        self._client.delete_environment(name)
        with contextlib.suppress(Missing):
            while self._client.environment(name).status.state == "DELETING":
                time.sleep(_LOOK_SECONDS)

    def _watched(self, name: str) -> dict[str, Any]:
        try:
            for line in self._client.environment_logs(name, follow=True):
                if line:
                    progress(f"  {line}")
        except KeyboardInterrupt:
            progress(f"the platform goes on with the build; next: naiad env logs {name} --follow")
            raise
        return self.get(name)


def _taken(name: str) -> NoReturn:
    ways = f"'naiad env rebuild {name} -r FILE' builds it of another file, 'naiad env rm {name}' removes it"
    fail(f"environment '{name}' exists and is made of something else; {ways}")


def _fields(document: dict[str, Any]) -> EnvironmentFields:
    from pydantic import ValidationError

    from naiad.control.environments.schema import EnvironmentFields

    try:
        return EnvironmentFields.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        fail(f"{where}: {first['msg'].removeprefix('Value error, ')}", Exit.USAGE)


def _flat(environment: Environment) -> dict[str, Any]:
    document: dict[str, Any] = environment.model_dump(mode="json")
    status: dict[str, Any] = document.pop("status")
    return {**document, "wanted_python": document["python"], **status}
