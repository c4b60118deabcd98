"""Loads, reloads and unloads models: the repository's versions against what is published."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from naiad._core import Core, CoreError
from naiad.config import pbtxt
from naiad.config.pbtxt import PartialConfig
from naiad.errors import ConfigError, LoadError, NaiadError
from naiad.repository.index import ModelDirectory, look_at
from naiad.repository.paths import below, is_model_name
from naiad.repository.versions import chosen
from naiad.server.loader import Loaded, Loader, LoadRequest
from naiad.server.states import LOADING, READY, UNAVAILABLE, UNLOADING, States
from naiad.server.supervisor import Supervisor, Worker

log = logging.getLogger("naiad.models")

DRAIN_MILLIS = 30_000


class Refused(NaiadError):
    """A load or unload that is refused, with the code of the answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsOptions:
    """Where models come from."""

    repositories: Sequence[Path]
    config_name: str | None


class Models:
    """Every model of this server."""

    def __init__(
        self, core: Core, *, loader: Loader, supervisor: Supervisor, states: States, options: ModelsOptions
    ) -> None:
        self._core = core
        self._loader = loader
        self._supervisor = supervisor
        self._states = states
        self._options = options
        self._published: dict[str, dict[int, Loaded]] = {}
        self._overrides: dict[str, Path] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()

    def _lock(self, name: str) -> threading.Lock:
        with self._guard:
            return self._locks[name]

    def loaded(self) -> list[str]:
        """Names of models with a published version."""
        return [name for name, versions in list(self._published.items()) if versions]

    def workers(self) -> list[Worker]:
        """Every worker that serves or could serve."""
        return [
            worker
            for versions in list(self._published.values())
            for loaded in list(versions.values())
            for worker in loaded.workers
        ]

    # -- load -------------------------------------------------------------------------------------------------------

    def load(self, name: str, *, config: str | None = None, files: Mapping[str, str] | None = None) -> None:
        """Loads or reloads a model and returns when it is READY; raises `Refused` (W69, W70, W72)."""
        if not is_model_name(name):
            raise Refused(
                "invalid_arg", f"invalid model name '{name}', model name must not contain path traversal characters"
            )
        with self._lock(name):
            self._states.want(name, wanted=True)
            try:
                directory = self._directory(name, files)
                partial = self._configuration(directory, config)
                versions = self._versions(directory, partial)
            except (ConfigError, LoadError) as error:
                raise self._failed(LoadError(model=name, version=None, stage="repository", cause=str(error))) from error
            self._load_versions(directory, partial, versions)

    def _directory(self, name: str, files: Mapping[str, str] | None) -> ModelDirectory:
        if files:
            return look_at(self._write_override(name, files))
        found = [root / name for root in self._options.repositories if (root / name).is_dir()]
        if not found:
            text = f"failed to load '{name}', failed to poll from model repository"
            self._states.fail(name, text)
            raise Refused("internal", text)
        if len(found) > 1:
            raise ConfigError("model appears in two or more repositories")
        self._drop_override(name)
        model = look_at(found[0])
        if model.problem:
            raise ConfigError(model.problem)
        return model

    def _write_override(self, name: str, files: Mapping[str, str]) -> Path:
        """The given files as a model directory that replaces the repository's (W68)."""
        parent = Path(tempfile.mkdtemp(prefix="naiad-"))
        root = parent / name
        root.mkdir()
        try:
            for relative, content in files.items():
                path = below(root, relative)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(content, validate=True))
        except (ConfigError, binascii.Error, OSError) as error:
            shutil.rmtree(parent, ignore_errors=True)
            raise Refused("invalid_arg", f"failed to load '{name}': file override: {error}") from error
        self._drop_override(name)
        self._overrides[name] = parent
        return root

    def _drop_override(self, name: str) -> None:
        before = self._overrides.pop(name, None)
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def _configuration(self, directory: ModelDirectory, override: str | None) -> PartialConfig:
        if override is not None:
            return pbtxt.parse_json(override, "load parameter 'config'")
        return pbtxt.read(directory.path, config_name=self._options.config_name)

    def _versions(self, directory: ModelDirectory, partial: PartialConfig) -> list[int]:
        versions = chosen(partial.message.version_policy, list(directory.versions))
        if not versions:
            there = ", ".join(map(str, directory.versions)) or "none"
            raise ConfigError(f"version_policy: no version folder matches; the model has {there}")
        return versions

    def _load_versions(self, directory: ModelDirectory, partial: PartialConfig, versions: Sequence[int]) -> None:
        name = directory.name
        failures: list[LoadError] = []
        fresh: dict[int, Loaded] = {}
        for version in versions:
            serving = version in self._published.get(name, {})
            if not serving:
                self._states.set(name, version, LOADING)
            begin = time.monotonic()
            try:
                request = LoadRequest(model=name, version=version, directory=directory.path, partial=partial)
                fresh[version] = self._loader.load(request)
            except LoadError as error:
                failures.append(error)
                self._report(error)
                if not serving:
                    self._states.set(name, version, UNAVAILABLE, _reason(error))
                continue
            fields = {"model": name, "version": version, "took_secs": round(time.monotonic() - begin, 3)}
            log.info("successfully loaded '%s' version %d", name, version, extra={"fields": fields})
        self._publish(name, fresh, keep=set(versions))
        if failures:
            parts = "".join(f"version {e.version} is at UNAVAILABLE state: Internal: {_reason(e)};\n" for e in failures)
            raise Refused("invalid_arg", f"load failed for model '{name}': {parts}")

    def _publish(self, name: str, fresh: dict[int, Loaded], *, keep: set[int]) -> None:
        """Makes the fresh versions serve, then lets go of what they replace and of versions outside the policy."""
        current = self._published.setdefault(name, {})
        serving = sorted(set(current) & keep | set(fresh))
        old: list[Loaded] = []
        for version, loaded in fresh.items():
            loaded.spec["default_version"] = version == serving[-1]
            if version in current:  # before: a replacement of an old worker must not join the new version
                self._release(current[version])
            self._core.publish(json.dumps(loaded.spec).encode())
            if version in current:
                old.append(current[version])
            current[version] = loaded
            self._loader.keep(loaded, self._follow(name, version))
            self._states.set(name, version, READY)
        if old:
            self._core.retire_replaced(name, DRAIN_MILLIS)
            for loaded in old:
                self._discard(loaded)
        for version in [version for version in current if version not in keep]:
            self._retire(name, version)

    def _follow(self, name: str, version: int):  # type: ignore[no-untyped-def]
        """What a worker's loss and return mean for the index."""

        def on_state(reason: str | None) -> None:
            if version in self._published.get(name, {}):
                self._states.set(name, version, READY if reason is None else UNAVAILABLE, reason or "")

        return on_state

    def _failed(self, error: LoadError) -> Refused:
        self._report(error)
        self._states.fail(error.model, _reason(error))
        return Refused("invalid_arg", f"load failed for model '{error.model}': {_reason(error)};\n")

    def _report(self, error: LoadError) -> None:
        """The one record of a failure."""
        fields = {key: value for key, value in error.record().items() if value not in (None, "")}
        notes = [note for note in getattr(error, "__notes__", []) if note]
        if notes:
            fields["traceback"] = notes[0]
        log.error("failed to load '%s'", error.model, extra={"fields": fields})

    # -- unload -----------------------------------------------------------------------------------------------------

    def unload(self, name: str) -> None:
        """Unloads a model; unknown or unloaded is fine (W8)."""
        with self._lock(name):
            self._states.want(name, wanted=False)
            for version in list(self._published.get(name, {})):
                self._retire(name, version)
            self._drop_override(name)

    def _retire(self, name: str, version: int) -> None:
        loaded = self._published[name].pop(version)
        self._states.set(name, version, UNLOADING)
        self._release(loaded)
        self._core.retire(name, version, DRAIN_MILLIS)
        self._discard(loaded)
        self._states.set(name, version, UNAVAILABLE, "unloaded")
        log.info("unloaded '%s' version %d", name, version, extra={"fields": {"model": name, "version": version}})

    def _release(self, loaded: Loaded) -> None:
        for worker in self._supervisor.current(loaded.workers):
            self._supervisor.release(worker)

    def _discard(self, loaded: Loaded) -> None:
        for worker in self._supervisor.current(loaded.workers):
            try:
                self._supervisor.discard(worker)
            except CoreError as error:
                log.warning("closing a worker: %s", error)


def _reason(error: LoadError) -> str:
    return f"{error.stage}: {error.cause}" + (f" (fix: {error.fix})" if error.fix else "")
