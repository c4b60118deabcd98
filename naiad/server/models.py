"""Loads, reloads and unloads models: the repository's versions against what is published."""

from __future__ import annotations

import json
import logging
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
from naiad.repository.index import ModelDirectory, locate
from naiad.repository.paths import is_model_name
from naiad.repository.versions import chosen
from naiad.server.drains import Drains
from naiad.server.failures import without_paths
from naiad.server.load_request import LoadRequest
from naiad.server.loader import Loaded, Loader, Rescaled
from naiad.server.overrides import Overrides
from naiad.server.states import LOADING, READY, UNAVAILABLE, UNLOADING, States
from naiad.server.supervisor import Supervisor
from naiad.server.worker import Worker

log = logging.getLogger("naiad.models")


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
    load_retries: int = 0


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
        self._drains = Drains(core, supervisor)
        self._overrides = Overrides()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()

    def _lock(self, name: str) -> threading.Lock:
        with self._guard:
            return self._locks[name]

    def loaded(self) -> list[str]:
        """Names of models with a published version."""
        return [name for name, versions in list(self._published.items()) if versions]

    def workers(self) -> list[Worker]:
        """Every worker that serves, could serve or still finishes."""
        serving = [
            worker
            for versions in list(self._published.values())
            for loaded in list(versions.values())
            for worker in loaded.workers
        ]
        return serving + self._drains.workers()

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
                requests = [
                    LoadRequest(model=name, version=version, directory=directory.path, partial=configuration)
                    for version in versions
                ]
                if not self._rescale(name, requests):
                    self._load_versions(name, requests)
            except ConfigError as error:
                raise self._failed(name, str(error), error.code) from error
            except OSError as error:
                text = f"the model's directory cannot be read: {error.strerror}"
                raise self._failed(name, text, "FILE_UNREADABLE") from error
            finally:
                self._sweep(name)

    def _directory(self, name: str, files: Mapping[str, str] | None) -> ModelDirectory:
        if files:
            roots = [self._overridden(name, files)]
        else:
            roots = list(self._options.repositories)
        model = locate(name, roots)
        if model is None:
            text = f"failed to load '{name}', failed to poll from model repository"
            self._states.missing(name, text)
            raise Refused("internal", text)
        if model.problem:
            raise ConfigError(model.problem)
        return model

    def _overridden(self, name: str, files: Mapping[str, str]) -> Path:
        """A repository of one model: the given files in place of the model's directory (W68)."""
        try:
            return self._overrides.write(name, files).parent
        except ConfigError as error:
            raise Refused("invalid_arg", f"failed to load '{name}': file override: {error}") from error
        except OSError as error:
            raise Refused("internal", f"failed to load '{name}': file override: {error.strerror}") from error

    def _sweep(self, name: str) -> None:
        """Removes overridden directories that no version needs any more."""
        if not self._drains.is_busy(name):
            with self._guard:
                used = {loaded.directory for loaded in self._published.get(name, {}).values()}
            self._overrides.sweep(name, used=used)

    def clean(self) -> None:
        """Removes what the server has written: it ends."""
        self._overrides.clean()

    def _configuration(self, directory: ModelDirectory, override: str | None) -> PartialConfig:
        if override is not None:
            return pbtxt.parse_json(override, "load parameter 'config'")
        return pbtxt.read(directory.path, config_name=self._options.config_name)

    def _versions(self, directory: ModelDirectory, partial: PartialConfig) -> list[int]:
        versions = chosen(partial.message.version_policy, list(directory.versions))
        if not versions:
            there = ", ".join(map(str, directory.versions))
            text = f"at least one version must be available under the version policy of model '{directory.name}'"
            raise ConfigError(f"{text}; it has {there}")
        return versions

    def _rescale(self, name: str, requests: Sequence[LoadRequest]) -> bool:
        """Changes the number of instances in place where nothing else changed; false if it takes a load."""
        serving = self._published.get(name, {})
        workers = self._supervisor.current([worker for loaded in serving.values() for worker in loaded.workers])
        if set(serving) != {request.version for request in requests} or any(worker.exit for worker in workers):
            return False
        made: list[tuple[Loaded, LoadRequest, Rescaled]] = []
        done = False
        try:
            for request in requests:
                rescaled = self._loader.rescale(serving[request.version], request)
                if rescaled is None:
                    return False
                made.append((serving[request.version], request, rescaled))
            for _, request, rescaled in made:
                for worker in rescaled.started:
                    self._core.attach_worker(name, request.version, worker.id)
            done = True
        except LoadError as error:
            raise self._refusal(name, {}, [error]) from error
        except CoreError as error:  # a worker died between its warm-up and now
            log.warning("the instances are loaded anew: %s", error, extra={"fields": {"model": name}})
            return False
        finally:
            if not done:
                self._discard([worker for _, _, rescaled in made for worker in rescaled.started])
        for loaded, request, rescaled in made:
            self._apply(loaded, request, rescaled)
        return True

    def _apply(self, loaded: Loaded, request: LoadRequest, rescaled: Rescaled) -> None:
        name, version = request.model, request.version
        surplus = [worker for worker in loaded.workers if worker.spec.instance >= rescaled.count]
        fields = {"model": name, "version": version, "before": len(loaded.workers), "after": rescaled.count}
        with self._guard:
            loaded.request, loaded.completed, loaded.plan = request, rescaled.completed, rescaled.plan
            loaded.workers = [worker for worker in loaded.workers if worker not in surplus] + rescaled.started
        self._core.reconfigure(name, version, json.dumps(rescaled.completed.config.document, separators=(",", ":")))
        self._loader.keep(loaded, rescaled.started, self._follow(name, version, loaded))
        self._drains.end(name, self._supervisor.release(surplus))
        self._states.set(name, version, READY)
        log.info("changed the instances of '%s' version %d", name, version, extra={"fields": fields})

    def _load_versions(self, name: str, requests: Sequence[LoadRequest]) -> None:
        """All of the versions or, as Triton does it, none: after a failure what served before serves on (W69)."""
        failures: list[LoadError] = []
        fresh: dict[int, Loaded] = {}
        for request in requests:
            version = request.version
            if version not in self._published.get(name, {}):
                self._states.set(name, version, LOADING)
            begin = time.monotonic()
            try:
                fresh[version] = self._bring_up(request)
            except LoadError as error:
                failures.append(error)
                continue
            took = time.monotonic() - begin
            fresh[version].spec["load_us"] = int(took * 1e6)
            fields = {"model": name, "version": version, "took_secs": round(took, 3)}
            log.info("successfully loaded '%s' version %d", name, version, extra={"fields": fields})
        if not failures:
            failures = self._publish(name, fresh)
        if failures:
            raise self._refusal(name, fresh, failures)

    def _refusal(self, name: str, fresh: Mapping[int, Loaded], failures: Sequence[LoadError]) -> Refused:
        """Reports the failures, takes back what was begun, and answers what the client is told."""
        self._abandon(name, fresh, failures)
        parts = "".join(f"version {e.version} is at UNAVAILABLE state: Internal: {e.reason};\n" for e in failures)
        return Refused("invalid_arg", f"load failed for model '{name}': {parts}")

    def _discard(self, workers: Sequence[Worker]) -> None:
        for worker in self._supervisor.release(workers):
            self._supervisor.discard(worker)

    def _bring_up(self, request: LoadRequest) -> Loaded:
        """One version, with as many further attempts as `--model-load-retry-count` says."""
        for left in range(self._options.load_retries, -1, -1):
            try:
                return self._loader.load(request)
            except LoadError as error:
                failure = error
            except Exception as error:  # a bug of ours must not leave the version LOADING for ever
                cause = f"unexpected {type(error).__name__}; see the log"
                failure = LoadError(model=request.model, version=request.version, stage="load", cause=cause)
                failure.add_note(traceback.format_exc())
            if left:
                fields = {**failure.record(), "attempts_left": left}
                log.warning("a load failed and is tried again", extra={"fields": fields})
        raise failure

    def _abandon(self, name: str, fresh: Mapping[int, Loaded], failures: Sequence[LoadError]) -> None:
        """Reports the failures and stops the workers of versions that were not published because of them."""
        reasons = {failure.version: failure.reason for failure in failures}
        for failure in failures:
            self._report(failure)
        serving = self._published.get(name, {})
        for version in sorted({*fresh, *(version for version in reasons if version is not None)}):
            loaded = fresh.get(version)
            if loaded is not None and serving.get(version) is not loaded:
                self._discard(loaded.workers)
            reason = reasons.get(version, "another version of the model failed to load")
            if version not in serving:
                self._states.set(name, version, UNAVAILABLE, reason)
            elif serving[version] is not loaded:
                self._states.kept(name, version, reason)

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
            self._loader.keep(loaded, loaded.workers, self._follow(name, version, loaded))
        self._retire(name, [] if failures else [version for version in current if version not in fresh], replaced)
        return failures

    def _follow(self, name: str, version: int, loaded: Loaded) -> Callable[[str | None], None]:
        """What a worker's loss and return mean for the index: a version is READY while one of its workers lives."""

        def on_state(reason: str | None) -> None:
            with self._guard:  # the version may be replaced or retired at any moment
                if self._published.get(name, {}).get(version) is not loaded:
                    return
                workers = self._supervisor.current(loaded.workers)
                lost = sum(worker.exit is not None for worker in workers)
                text = without_paths(reason or "", loaded.directory)
                if 0 < lost < len(workers):
                    text = f"{lost} of {len(workers)} workers are lost" + (f": {text}" if text else "")
                down = lost == len(workers) and reason is not None
                self._states.impair(name, version, text, down=down)

        return on_state

    def _failed(self, name: str, cause: str, code: str) -> Refused:
        error = LoadError(model=name, version=None, stage="repository", cause=cause).coded(code)
        self._report(error)
        self._states.fail(name, error.reason)
        return Refused("invalid_arg", f"load failed for model '{name}': {error.reason};\n")

    def _report(self, error: LoadError) -> None:
        """The one record of a failure."""
        fields = {key: value for key, value in error.record().items() if value not in (None, "")}
        notes = [note for note in getattr(error, "__notes__", []) if note]
        if notes:
            fields["traceback"] = notes[0]
        log.error("failed to load '%s'", error.model, extra={"fields": fields})

    # -- unload -----------------------------------------------------------------------------------------------------

    def unload(self, name: str) -> None:
        """Takes a model out of service; its requests finish later (W70). Unknown or unloaded is fine (W8)."""
        with self._lock(name):
            self._states.want(name, wanted=False)
            self._retire(name, list(self._published.get(name, {})), [])
            self._sweep(name)

    def _retire(self, name: str, versions: Sequence[int], replaced: Sequence[Worker]) -> None:
        """Takes the versions out of service, and lets them and the replaced workers finish in the background."""
        workers = list(replaced)
        for version in versions:
            with self._guard:
                loaded = self._published[name].pop(version)
            self._states.set(name, version, UNLOADING)
            workers += self._supervisor.release(loaded.workers)
            self._core.withdraw(name, version)

        def gone() -> None:
            for version in versions:
                self._states.unloaded(name, version)
                fields = {"model": name, "version": version}
                log.info("successfully unloaded '%s' version %d", name, version, extra={"fields": fields})
            lock = self._lock(name)
            if lock.acquire(blocking=False):  # a load that runs now sweeps at its end
                try:
                    self._sweep(name)
                finally:
                    lock.release()

        if workers or versions:
            self._drains.start(name, workers, gone)
