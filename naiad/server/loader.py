"""Brings one model version from its directory to READY: configuration, worker, dry run, warm-up, publication."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from naiad.backends import registry
from naiad.config import recognition
from naiad.config.autocomplete import complete
from naiad.config.described import Described
from naiad.config.model import Completed, ModelConfig
from naiad.config.probe import ProbeRequest, probe_request
from naiad.config.spec import model_spec
from naiad.errors import LoadError
from naiad.repository.files import model_file
from naiad.repository.local import Snapshot
from naiad.server import describe, devices, scaling
from naiad.server.failures import guarded
from naiad.server.load_request import LoadRequest, Place
from naiad.server.plan import Plan, labels_of, plan_of
from naiad.server.probing import AS_WRITTEN, instead_of_run
from naiad.server.restart import RestartPolicy
from naiad.server.starter import Starter, StarterOptions
from naiad.server.supervisor import Replay, Supervisor
from naiad.server.worker import Worker
from naiad.signature.model import Signature

log = logging.getLogger("naiad.loader")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """How versions are loaded."""

    complete_configs: bool
    hold: int
    """Test hook: requests that a scheduler waits for before its first batch."""
    starter: StarterOptions


@dataclass(slots=True, kw_only=True)
class Loaded:
    """A version whose workers are ready to be published."""

    request: LoadRequest
    files: Snapshot
    """What it was loaded from, its configuration apart."""
    completed: Completed
    spec: dict[str, Any]
    workers: list[Worker]
    plan: Plan

    @property
    def directory(self) -> Path:
        """The model's directory that it was loaded from."""
        return Path(self.plan.load["model_directory"])


@dataclass(frozen=True, slots=True)
class Rescaled:
    """What a version becomes whose number of instances changes."""

    completed: Completed
    plan: Plan
    started: list[Worker]
    """Workers that are ready to be attached."""
    count: int
    """How many instances there are then; those with higher numbers end."""


class Loader:
    """Loads versions; safe to be called from several threads."""

    def __init__(self, supervisor: Supervisor, options: LoaderOptions) -> None:
        self._supervisor = supervisor
        self._starter = Starter(supervisor, options.starter)
        self._complete = options.complete_configs
        self._hold = options.hold
        self._backends = options.starter.backends

    def load(self, request: LoadRequest) -> Loaded:
        """Starts the workers of a version and brings them to serve; raises `LoadError`."""
        return guarded(request, lambda: self._load(request))

    def rescale(self, loaded: Loaded, request: LoadRequest) -> Rescaled | None:
        """Starts the workers that other instance groups ask for beside those that serve; raises `LoadError`.

        None where it takes a whole load: something else changed too, or an instance would move to another device.
        """
        same = loaded.request.directory == request.directory and loaded.files == scaling.files_of(request.directory)
        if not same or not scaling.only_groups_differ(loaded.request.partial, request.partial):
            return None
        return guarded(request, lambda: self._rescale(loaded, request))

    def _rescale(self, loaded: Loaded, request: LoadRequest) -> Rescaled | None:
        devices.check(request.partial.message, name=request.model)
        completed = scaling.with_groups(loaded.completed, request.partial)
        before, after = devices.of_instances(loaded.completed.config), devices.of_instances(completed.config)
        both = min(len(before), len(after))
        python = self._starter.interpreter(request, registry.BACKENDS[completed.config.backend]).python
        moved = before[:both] != after[:both] or any(worker.spec.python != python for worker in loaded.workers)
        if moved or self._starter.threads_of(request, completed.config.backend) != loaded.plan.load["threads"]:
            return None
        # New instances are told of the new groups, which their names come from.
        plan = replace(loaded.plan, load={**loaded.plan.load, "config": dict(completed.config.document)})
        started: list[Worker] = []
        try:
            self._instances(request, completed.config, plan, started, first=len(before))
        except BaseException:
            self._discard(started)
            raise
        return Rescaled(completed, plan, started, len(after))

    def _discard(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            self._supervisor.discard(worker)

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
                conflicts = (*told.conflicts, *completed.conflicts)
                completed = replace(completed, origins={**completed.origins, **told.origins}, conflicts=conflicts)
            load = self._starter.message(stated, (backend, folder, file))
            plan = plan_of(stated, completed.config, load, backend.warm_up_calls, probed)
            self._instances(stated, completed.config, plan, started, first=0)
            spec = model_spec(
                completed.config,
                version=request.version,
                workers=[worker.id for worker in started],
                labels=labels_of(completed.config, request.directory),
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

    def _described(self, request: LoadRequest, place: Place, signature: Signature | None) -> Described | None:
        """The configuration with what the model says of itself; None where it says nothing or is not to be asked."""
        if signature is None or not signature.describes or not place[0].describes or not self._complete:
            return None

        def ask(config: Mapping[str, Any]) -> Mapping[str, Any]:
            return self._ask(request, place, {"config": config})

        return describe.described(request.partial, place[0], name=request.model, ask=ask)

    def _ask(self, request: LoadRequest, place: Place, other: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a worker answers to DESCRIBE: LOAD's message with other fields."""
        worker = self._starter.start(request, place, instance=0, device=devices.first(request.partial.message))
        message = {**self._starter.message(request, place), **other}
        return describe.once(self._supervisor, worker, message)

    def _signature(self, request: LoadRequest, place: Place) -> Signature | None:
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
        place: Place,
        probed: ProbeRequest | None,
        started: list[Worker],
    ) -> tuple[Completed, ProbeRequest | None]:
        """The finished configuration, and the dry run at the shapes that the model accepts.

        The worker that the dry run needs is started and goes on to serve.
        """
        backend = place[0]
        if probed is None:
            return complete(request.partial, backend, name=request.model, report=None, probed=None), None
        worker = self._starter.start(request, place, instance=0, device=devices.first(request.partial.message))
        started.append(worker)
        worker.load(self._starter.message(request, place))
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

    def _instances(
        self, request: LoadRequest, config: ModelConfig, plan: Plan, started: list[Worker], *, first: int
    ) -> None:
        """Brings instances from number `first` on to serve; one that the dry run has started is there already."""
        place = (registry.BACKENDS[config.backend], request.directory / str(request.version), plan.load["file"])
        probed = len(started)
        for instance, device in enumerate(devices.of_instances(config)):
            if instance < first:
                continue
            if instance - first >= probed:
                worker = self._starter.start(request, place, instance=instance, device=device)
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
