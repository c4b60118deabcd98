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
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
        self._overrides: defaultdict[str, set[Path]] = defaultdict(set)
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
                configuration = self._configuration(directory, config)
                versions = self._versions(directory, configuration)
                self._load_versions(directory, configuration, versions)
            except ConfigError as error:
                raise self._failed(name, str(error)) from error
            except OSError as error:
                raise self._failed(name, f"the model's directory cannot be read: {error.strerror}") from error
            finally:
                self._sweep_overrides(name)

    def _directory(self, name: str, files: Mapping[str, str] | None) -> ModelDirectory:
        if files:
            return look_at(self._write_override(name, files))
        found = [root / name for root in self._options.repositories if (root / name).is_dir()]
        if not found:
            text = f"failed to load '{name}', failed to poll from model repository"
            self._states.missing(name, text)
            raise Refused("internal", text)
        if len(found) > 1:
            raise ConfigError("model appears in two or more repositories")
        model = look_at(found[0])
        if model.problem:
            raise ConfigError(model.problem)
        return model

    def _write_override(self, name: str, files: Mapping[str, str]) -> Path:
        """The given files as a model directory that replaces the repository's (W68)."""
        parent = Path(tempfile.mkdtemp(prefix="naiad-"))
        self._overrides[name].add(parent)
        root = parent / name
        try:
            root.mkdir()
            for relative, content in files.items():
                path = below(root, relative)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(content, validate=True))
        except (ConfigError, binascii.Error) as error:
            raise Refused("invalid_arg", f"failed to load '{name}': file override: {error}") from error
        except OSError as error:
            raise Refused("internal", f"failed to load '{name}': file override: {error.strerror}") from error
        return root

    def _sweep_overrides(self, name: str) -> None:
        """Removes directories made from `file:` content that no published version was loaded from.

        Those of a version that serves stay, for a worker that is started again reads its files anew.
        """
        used = {loaded.directory.parent for loaded in self._published.get(name, {}).values()}
        for unused in self._overrides.get(name, set()) - used:
            shutil.rmtree(unused, ignore_errors=True)
            self._overrides[name].discard(unused)

    def clean(self) -> None:
        """Removes every directory made from `file:` content: the server ends."""
        for parents in list(self._overrides.values()):
            for parent in list(parents):
                shutil.rmtree(parent, ignore_errors=True)

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
        """All of the versions or, as Triton does it, none: after a failure what served before serves on (W69)."""
        name = directory.name
        failures: list[LoadError] = []
        fresh: dict[int, Loaded] = {}
        for version in versions:
            if version not in self._published.get(name, {}):
                self._states.set(name, version, LOADING)
            begin = time.monotonic()
            request = LoadRequest(model=name, version=version, directory=directory.path, partial=partial)
            try:
                fresh[version] = self._bring_up(request)
            except LoadError as error:
                failures.append(error)
                continue
            took = round(time.monotonic() - begin, 3)
            fresh[version].spec["load_duration_secs"] = took
            fields = {"model": name, "version": version, "took_secs": took}
            log.info("successfully loaded '%s' version %d", name, version, extra={"fields": fields})
        if not failures:
            failures = self._publish(name, fresh)
        if failures:
            self._abandon(name, fresh, failures)
            parts = "".join(f"version {e.version} is at UNAVAILABLE state: Internal: {_reason(e)};\n" for e in failures)
            raise Refused("invalid_arg", f"load failed for model '{name}': {parts}")

    def _bring_up(self, request: LoadRequest) -> Loaded:
        try:
            return self._loader.load(request)
        except LoadError:
            raise
        except Exception as error:  # a bug of ours must not leave the version LOADING for ever
            cause = f"unexpected {type(error).__name__}; see the log"
            failure = LoadError(model=request.model, version=request.version, stage="load", cause=cause)
            failure.add_note(traceback.format_exc())
            raise failure from error

    def _abandon(self, name: str, fresh: Mapping[int, Loaded], failures: Sequence[LoadError]) -> None:
        """Reports the failures and stops the workers of versions that were not published because of them."""
        reasons = {failure.version: _reason(failure) for failure in failures}
        for failure in failures:
            self._report(failure)
        serving = self._published.get(name, {})
        for version in sorted({*fresh, *(version for version in reasons if version is not None)}):
            loaded = fresh.get(version)
            if loaded is not None and serving.get(version) is not loaded:
                self._discard(self._supervisor.release(loaded.workers))
            if version not in serving:
                other = "another version of the model failed to load"
                self._states.set(name, version, UNAVAILABLE, reasons.get(version, other))

    def _publish(self, name: str, fresh: Mapping[int, Loaded]) -> list[LoadError]:
        """Makes the fresh versions serve, then lets go of what they replace and of versions that were not chosen."""
        current = self._published.setdefault(name, {})
        failures: list[LoadError] = []
        replaced: list[Worker] = []
        for version, loaded in fresh.items():
            loaded.spec["default_version"] = version == max(fresh)
            before = current[version].workers if version in current else []
            try:
                publish = partial(self._core.publish, json.dumps(loaded.spec).encode())
                replaced += self._supervisor.hand_over(before, publish)
            except CoreError as error:  # a worker died between its warm-up and now
                failures.append(LoadError(model=name, version=version, stage="publish", cause=error.args[1]))
                continue
            with self._guard:
                current[version] = loaded
            self._states.set(name, version, READY)
            self._loader.keep(loaded, self._follow(name, version, loaded))
        if replaced:
            self._core.retire_replaced(name, DRAIN_MILLIS)
            self._discard(replaced)
        if not failures:
            for version in [version for version in current if version not in fresh]:
                self._retire(name, version)
        return failures

    def _follow(self, name: str, version: int, loaded: Loaded) -> Callable[[str | None], None]:
        """What a worker's loss and return mean for the index: a version is READY while one of its workers lives."""

        def on_state(reason: str | None) -> None:
            with self._guard:  # the version may be replaced or retired at any moment
                if self._published.get(name, {}).get(version) is not loaded:
                    return
                if any(worker.exit is None for worker in self._supervisor.current(loaded.workers)):
                    reason = None
                self._states.set(name, version, READY if reason is None else UNAVAILABLE, reason or "")

        return on_state

    def _failed(self, name: str, cause: str) -> Refused:
        error = LoadError(model=name, version=None, stage="repository", cause=cause)
        self._report(error)
        self._states.fail(name, _reason(error))
        return Refused("invalid_arg", f"load failed for model '{name}': {_reason(error)};\n")

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
            self._sweep_overrides(name)

    def _retire(self, name: str, version: int) -> None:
        with self._guard:
            loaded = self._published[name].pop(version)
        self._states.set(name, version, UNLOADING)
        workers = self._supervisor.release(loaded.workers)
        self._core.retire(name, version, DRAIN_MILLIS)
        self._discard(workers)
        self._states.set(name, version, UNAVAILABLE, "unloaded")
        log.info("unloaded '%s' version %d", name, version, extra={"fields": {"model": name, "version": version}})

    def _discard(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            try:
                self._supervisor.discard(worker)
            except CoreError as error:
                log.warning("closing a worker: %s", error)


def _reason(error: LoadError) -> str:
    return f"{error.stage}: {error.cause}" + (f" (fix: {error.fix})" if error.fix else "")
