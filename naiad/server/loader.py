"""Brings one model version from its directory to READY: configuration, worker, dry run, warm-up, publication."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from naiad.backends import registry
from naiad.backends.base import Backend
from naiad.config import declared, patch, recognition
from naiad.config.autocomplete import ProbeRequest, argument_of, complete, probe_request
from naiad.config.described import Described
from naiad.config.json_form import to_dict
from naiad.config.model import Completed, ModelConfig, WarmUpSample
from naiad.config.pbtxt import PartialConfig
from naiad.config.spec import model_spec
from naiad.environments.errors import BadArchive, NoSuchEnvironment, Unfit
from naiad.errors import ConfigError, LoadError, UnservableFile
from naiad.repository.files import model_file
from naiad.repository.local import Snapshot
from naiad.repository.paths import below
from naiad.server import describe, devices, scaling, threads
from naiad.server.backend_config import BackendConfig
from naiad.server.interpreter import Interpreter, Interpreters, explained
from naiad.server.restart import RestartPolicy
from naiad.server.supervisor import Replay, Supervisor
from naiad.server.worker import Worker, WorkerSpec
from naiad.signature.model import Signature

log = logging.getLogger("naiad.loader")

AS_WRITTEN = "a dry run with zeros fails (%s); the configuration tells everything, so it is taken as written"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """Which version to load from where."""

    model: str
    version: int
    directory: Path
    partial: PartialConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """How versions are loaded."""

    load_timeout_secs: float
    complete_configs: bool
    hold: int
    """Test hook: requests that a scheduler waits for before its first batch."""
    backends: BackendConfig
    interpreters: Interpreters
    threads: str = "1"
    """Of a model that does not say: `auto` or a number."""
    verbose: bool = False
    """Whether models may write what only a verbose log shows."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What every instance of a version is told."""

    load: dict[str, Any]
    table: dict[str, Any]
    warm_up: list[dict[str, Any]]
    """WARMUP messages."""


@dataclass(slots=True, kw_only=True)
class Loaded:
    """A version whose workers are ready to be published."""

    request: LoadRequest
    files: Snapshot
    """What it was loaded from, its configuration apart."""
    completed: Completed
    spec: dict[str, Any]
    workers: list[Worker]
    plan: _Plan

    @property
    def directory(self) -> Path:
        """The model's directory that it was loaded from."""
        return Path(self.plan.load["model_directory"])


@dataclass(frozen=True, slots=True)
class Rescaled:
    """What a version becomes whose number of instances changes."""

    completed: Completed
    started: list[Worker]
    """Workers that are ready to be attached."""
    count: int
    """How many instances there are then; those with higher numbers end."""


class Loader:
    """Loads versions; safe to be called from several threads."""

    def __init__(self, supervisor: Supervisor, options: LoaderOptions) -> None:
        self._supervisor = supervisor
        self._load_timeout = options.load_timeout_secs
        self._complete = options.complete_configs
        self._hold = options.hold
        self._backends = options.backends
        self._threads = options.threads
        self._verbose = options.verbose
        self._interpreters = options.interpreters

    def load(self, request: LoadRequest) -> Loaded:
        """Starts the workers of a version and brings them to serve; raises `LoadError`."""
        return self._guarded(request, lambda: self._load(request))

    def rescale(self, loaded: Loaded, request: LoadRequest) -> Rescaled | None:
        """Starts the workers that other instance groups ask for beside those that serve; raises `LoadError`.

        None where it takes a whole load: something else changed too, or an instance would move to another device.
        """
        same = loaded.request.directory == request.directory and loaded.files == scaling.files_of(request.directory)
        if not same or not scaling.only_groups_differ(loaded.request.partial, request.partial):
            return None
        return self._guarded(request, lambda: self._rescale(loaded, request))

    def _rescale(self, loaded: Loaded, request: LoadRequest) -> Rescaled | None:
        devices.check(request.partial.message, name=request.model)
        completed = scaling.with_groups(loaded.completed, request.partial)
        before, after = devices.of_instances(loaded.completed.config), devices.of_instances(completed.config)
        both = min(len(before), len(after))
        python = self._interpreter(request, registry.BACKENDS[completed.config.backend]).python
        moved = before[:both] != after[:both] or any(worker.spec.python != python for worker in loaded.workers)
        if moved or self._threads_of(request, completed.config.backend) != loaded.plan.load["threads"]:
            return None
        started: list[Worker] = []
        try:
            self._instances(request, completed.config, loaded.plan, started, first=len(before))
        except BaseException:
            self._discard(started)
            raise
        return Rescaled(completed, started, len(after))

    def _discard(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            self._supervisor.discard(worker)

    def _guarded(self, request: LoadRequest, step: Callable[[], T]) -> T:
        """Runs a step; what it raises becomes the one record of a failure."""
        try:
            return step()
        except LoadError as error:
            error.cause = without_paths(error.cause, request.directory)
            explained(error, request.partial.message)
            raise
        except UnservableFile as error:
            raise self._failure(request, "signature", error.what, error.fix).coded(error.code) from error
        except ConfigError as error:
            raise self._failure(request, "configuration", error.what, error.fix).coded(error.code) from error
        except OSError as error:
            file = Path(error.filename).name if isinstance(error.filename, str) else ""
            cause = f"'{file}': {error.strerror}" if file else str(error.strerror)
            failure = self._failure(request, "repository", cause, "check the rights of the files")
            raise failure.coded("FILE_UNREADABLE") from error

    def _failure(self, request: LoadRequest, stage: str, cause: str, fix: str) -> LoadError:
        return LoadError(model=request.model, version=request.version, stage=stage, cause=cause, fix=fix)

    def _load(self, request: LoadRequest) -> Loaded:
        folder = request.directory / str(request.version)
        devices.check(request.partial.message, name=request.model)
        backend = self._backends.applied(recognition.backend_of(request.partial, folder, name=request.model))
        file = request.partial.message.default_model_filename or backend.default_filename
        signature = self._signature(request, (backend, folder, file))
        told = self._described(request, (backend, folder, file), signature)
        stated = request if told is None else replace(request, partial=told.partial)
        probed = None
        if backend.reads_signature and self._complete:
            probed = probe_request(request.partial, signature)
        started: list[Worker] = []
        files = scaling.files_of(request.directory)
        try:
            completed, probed = self._first(stated, (backend, folder, file), probed, started)
            if told is not None:
                completed = replace(completed, origins={**completed.origins, **told.origins})
            plan = self._plan(stated, completed.config, (backend, folder, file), probed)
            self._instances(stated, completed.config, plan, started, first=0)
            spec = model_spec(
                completed.config,
                version=request.version,
                workers=[worker.id for worker in started],
                labels=_labels(completed.config, request.directory),
                hold_until=self._hold,
            )
        except BaseException:
            self._discard(started)
            raise
        fields = {"model": request.model, "version": request.version}
        for note in completed.notes:
            log.info(note, extra={"fields": fields})
        for conflict in completed.conflicts:
            log.warning("conflict: %s", conflict, extra={"fields": {**fields, **conflict.document()}})
        log.debug("Model config: %s", json.dumps(completed.config.document), extra={"fields": fields})
        return Loaded(request=request, files=files, completed=completed, spec=spec, workers=started, plan=plan)

    def _described(
        self, request: LoadRequest, place: tuple[Backend, Path, str], signature: Signature | None
    ) -> Described | None:
        """The configuration with what the model says of itself; None where it says nothing or is not to be asked."""
        if signature is None or not signature.describes or not place[0].describes or not self._complete:
            return None

        def ask(config: Mapping[str, Any]) -> Mapping[str, Any]:
            return self._ask(request, place, {"config": config})

        return describe.described(request.partial, place[0], name=request.model, ask=ask)

    def _ask(
        self, request: LoadRequest, place: tuple[Backend, Path, str], other: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What a worker answers to DESCRIBE: LOAD's message with other fields."""
        worker = self._start(request, place, instance=0, device=devices.first(request.partial.message))
        message = {**self._load_message(request, place), **other}
        return describe.once(self._supervisor, worker, message)

    def _signature(self, request: LoadRequest, place: tuple[Backend, Path, str]) -> Signature | None:
        """What the file says, or its worker where only that opens the file."""
        backend, folder, file = place
        if not file:
            return None
        signature = recognition.signature_of(request.partial, backend, model_file(folder, file))
        if signature is None or not self._complete or not describe.by_worker(request.partial, backend, signature):
            return signature
        return describe.with_inputs(signature, self._ask(request, place, {}))

    def _first(
        self,
        request: LoadRequest,
        place: tuple[Backend, Path, str],
        probed: ProbeRequest | None,
        started: list[Worker],
    ) -> tuple[Completed, ProbeRequest | None]:
        """The finished configuration, and the dry run at the shapes that the model accepts.

        The worker that the dry run needs is started and goes on to serve.
        """
        backend = place[0]
        if probed is None:
            return complete(request.partial, backend, name=request.model, report=None, probed=None), None
        worker = self._start(request, place, instance=0, device=devices.first(request.partial.message))
        started.append(worker)
        worker.load(self._load_message(request, place))
        try:
            report, runs = worker.probe(probed.inputs, batched=probed.batched), True
        except LoadError as error:
            told = instead_of_run(request, probed, error)
            if told is None:
                fields = {"model": request.model, "version": request.version}
                log.warning(AS_WRITTEN, error.cause, extra={"fields": fields})
                return complete(request.partial, backend, name=request.model, report=None, probed=None), None
            report, runs = told, False
        completed = complete(request.partial, backend, name=request.model, report=report, probed=probed)
        return completed, replace(probed.at(report["shapes"]), runs=runs)

    def _start(
        self, request: LoadRequest, place: tuple[Backend, Path, str], *, instance: int, device: Mapping[str, Any]
    ) -> Worker:
        environment = {} if device["kind"] in ("cuda", "model") else {"CUDA_VISIBLE_DEVICES": ""}
        if self._verbose:
            environment["WORKER_LOG_VERBOSE"] = "1"
        interpreter = self._interpreter(request, place[0])
        spec = WorkerSpec(
            model=request.model,
            version=request.version,
            instance=instance,
            backend=place[0].half(place[2]),
            forks=place[0].forks,
            python=interpreter.python,
            environment={**environment, **interpreter.environment},
            lease=interpreter.lease,
            threads=self._threads_of(request, place[0].name),
            load_timeout_secs=self._load_timeout,
            start_timeout_secs=self._backends.start_secs(place[0].name),
        )
        return self._supervisor.start(spec)

    def _load_message(self, request: LoadRequest, place: tuple[Backend, Path, str]) -> dict[str, Any]:
        backend = place[0].name
        message = load_message(request, place, threads=self._threads_of(request, backend))
        return {**message, "settings": self._backends.told(backend)}

    def _threads_of(self, request: LoadRequest, backend: str) -> int:
        default = self._backends.threads(backend, self._threads)
        return threads.of_model(request.partial.message, default, source=request.partial.source)

    def _interpreter(self, request: LoadRequest, backend: Backend) -> Interpreter:
        partial = request.partial
        try:
            return self._interpreters.choose(partial.message, partial.source, request.directory, backend)
        except Unfit as error:
            raise self._failure(request, "environment", str(error), error.fix) from error
        except ConfigError as error:
            raise self._failure(request, "environment", error.what, error.fix).coded(error.code) from error
        except (BadArchive, NoSuchEnvironment, OSError) as error:
            cause = error.strerror or "it cannot be read" if isinstance(error, OSError) else str(error)
            raise self._failure(request, "environment", cause, "").coded("ENV_UNUSABLE") from error

    def _plan(
        self,
        request: LoadRequest,
        config: ModelConfig,
        place: tuple[Backend, Path, str],
        probed: ProbeRequest | None,
    ) -> _Plan:
        message = request.partial.message
        probes = {entry["name"]: entry for entry in probed.inputs} if probed else {}
        inputs: list[dict[str, Any]] = []
        for tensor in config.inputs:
            entry = {"name": tensor.name, "datatype": tensor.datatype, "dims": list(tensor.model_dims)}
            argument = argument_of(message, tensor.name) or probes.get(tensor.name, {}).get("argument")
            inputs.append({**entry, "argument": argument} if argument else entry)
        outputs = [
            {"name": tensor.name, "datatype": tensor.datatype, "dims": list(tensor.model_dims)}
            for tensor in config.outputs
        ]
        table = {
            "inputs": inputs,
            "outputs": outputs,
            "max_batch_size": config.max_batch_size,
            "decoupled": config.decoupled,
        }
        warm_up = []
        if probed is not None and probed.runs:
            calls = place[0].warm_up_calls
            sizes = sorted({1, config.max_batch_size if calls > 1 else 1}) if config.max_batch_size else [0]
            warm_up.append({"inputs": probed.inputs, "batch_sizes": sizes, "count": calls})
        arguments = {entry["name"]: entry["argument"] for entry in inputs if "argument" in entry}
        warm_up += [_warm_up(sample, request.directory, arguments) for sample in config.warm_up]
        load = {**self._load_message(request, place), "config": dict(config.document)}
        return _Plan(load, table, warm_up)

    def _instances(
        self, request: LoadRequest, config: ModelConfig, plan: _Plan, started: list[Worker], *, first: int
    ) -> None:
        """Brings instances from number `first` on to serve; one that the dry run has started is there already."""
        place = (registry.BACKENDS[config.backend], request.directory / str(request.version), plan.load["file"])
        probed = len(started)
        for instance, device in enumerate(devices.of_instances(config)):
            if instance < first:
                continue
            if instance - first >= probed:
                worker = self._start(request, place, instance=instance, device=device)
                started.append(worker)
                worker.load({**plan.load, "instance": instance, "device": device})
            worker = started[instance - first]
            worker.warm_up(plan.warm_up)
            worker.serve(plan.table)

    def keep(self, loaded: Loaded, workers: Sequence[Worker], on_state: Callable[[str | None], None]) -> None:
        """From now on lost workers of this version are replaced; `on_state` is told of it."""
        for worker in workers:
            device = devices.of_instances(loaded.completed.config)[worker.spec.instance]
            replay = Replay(
                load={**loaded.plan.load, "instance": worker.spec.instance, "device": device},
                warm_up=loaded.plan.warm_up,
                table=loaded.plan.table,
                policy=RestartPolicy(),
                on_state=on_state,
            )
            self._supervisor.keep(worker, replay)


def load_message(request: LoadRequest, place: tuple[Backend, Path, str], *, threads: int) -> dict[str, Any]:
    """The fields of LOAD for the first instance of (backend, version folder, file)."""
    backend, folder, file = place
    message = request.partial.message
    return {
        "model": request.model,
        "version": request.version,
        "instance": 0,
        "backend": backend.name,
        "model_directory": str(request.directory),
        "version_directory": str(folder),
        "file": file,
        "config": to_dict(message),
        "signature": None,
        "device": devices.first(message),
        "threads": threads,
        "settings": {},
    }


def probe_failure(request: LoadRequest, probed: ProbeRequest, error: LoadError) -> LoadError:
    """What a model raised in its dry run, with the inputs that it was given."""
    shapes = ", ".join(f"{entry['name']} {entry['datatype']} {entry['dims']}" for entry in probed.inputs)
    fix = error.fix or patch.of_traced(probed.inputs, batched=probed.batched)
    fix = fix or "check the inputs in config.pbtxt against what the model was traced with"
    cause = f"a dry run with zeros ({shapes}) fails: {error.cause}"
    failure = LoadError(model=request.model, version=request.version, stage="probe", cause=cause, fix=fix)
    return failure.coded("IO_MISMATCH" if error.code == "LOAD_FAILED" else error.code)


def instead_of_run(request: LoadRequest, probed: ProbeRequest, error: LoadError) -> dict[str, Any] | None:
    """What stands in for a dry run that failed: what the file declares; None where the configuration tells everything.

    Raises `LoadError` where neither does, or where the worker was lost.
    """
    if not probed.decides:
        return None
    told = declared.report(probed, error.cause) if error.stage == "probe" else None
    if told is None:
        raise probe_failure(request, probed, error) from error
    return told


def without_paths(text: str, directory: Path) -> str:
    """What a framework says of its files, without where on this machine they lie: clients read it (W69)."""
    for place in (directory, directory.resolve()):
        text = text.replace(f"{place}/", f"{directory.name}/").replace(str(place), directory.name)
    return text


def _warm_up(sample: WarmUpSample, directory: Path, arguments: Mapping[str, str]) -> dict[str, Any]:
    """The WARMUP message of a sample; raises `ConfigError` for a file that is not there (C2)."""
    inputs = []
    for tensor in sample.inputs:
        dims = [sample.rows, *tensor.dims] if sample.rows else list(tensor.dims)
        entry = {"name": tensor.name, "datatype": tensor.datatype, "dims": dims, "data": tensor.data}
        if tensor.name in arguments:
            entry["argument"] = arguments[tensor.name]
        if tensor.data == "file":
            path = below(directory / "warmup", tensor.file)
            if not path.is_file():
                place = f"model_warmup '{sample.name}': input '{tensor.name}': input_data_file"
                raise ConfigError(f"{place}: 'warmup/{tensor.file}' does not exist")
            entry["path"] = str(path)
        inputs.append(entry)
    return {"sample": sample.name, "inputs": inputs, "batch_sizes": [0], "count": sample.count}


def _labels(config: ModelConfig, directory: Path) -> dict[str, Sequence[str]]:
    """Lines of the label files by output name."""
    labels: dict[str, Sequence[str]] = {}
    for output in config.outputs:
        if output.label_filename:
            path = below(directory, output.label_filename)
            if not path.is_file():
                raise ConfigError(f"output '{output.name}': label_filename: '{output.label_filename}' does not exist")
            try:
                labels[output.name] = path.read_text("utf-8").splitlines()
            except UnicodeDecodeError as error:
                place = f"output '{output.name}': label_filename: '{output.label_filename}'"
                raise ConfigError(f"{place}: expected UTF-8 text, got {error.object[error.start]:#04x}") from error
    return labels
