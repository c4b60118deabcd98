"""Brings services to what is wanted: files in place, loaded on the server, reported; or unloaded and gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from naiad.control.diagnosis import Broken, Evidence, diagnose, make, of_broken
from naiad.control.engines.configuration import Declared
from naiad.control.engines.tensor import (
    LoadRefused,
    ModelFolder,
    ModelState,
    ServerUnavailable,
    TensorServer,
    internal_name,
)
from naiad.control.problems import Rejected
from naiad.control.reconcile import Busy
from naiad.control.schema import Diagnosis
from naiad.control.services.schema import ServiceFields
from naiad.control.services.sources import Sources
from naiad.control.services.store import Outcome, ServiceStore
from naiad.control.store import EnvironmentRow

_log = logging.getLogger("naiad.control")
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 60.0
_DIGEST_LETTERS = 32
_UNLOADED = frozenset({"", "unloaded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A service as the store has it."""

    name: str
    generation: int
    observed_generation: int
    version: int
    state: str
    step: str = ""
    """The timeline's last."""
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How the last tries of one generation on one server went; forgotten when either changes."""

    generation: int
    boot_id: str
    failures: int
    not_before: float
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Say what the service waits for; `code` is the diagnosis of something that does not come by itself."""

    step: str
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is of a service: its files, its server, its model there, and how earlier tries went."""

    files: bool
    boot_id: str | None
    model: ModelState | None
    attempt: Attempt | None
    waits: Wait | None = None
    """What it has to wait for before its files are made."""
    now: float


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make the model directory."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load the model."""


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload the model."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the model directory."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Forget a deleted service of which nothing is left."""


@dataclass(frozen=True, slots=True)
class Report:
    """Write down a state that was reached or lost without an action."""

    state: str
    step: str
    reason: str = ""


Action = Wait | Prepare | Load | Unload | Remove | Forget | Report


def plan(service: Wanted, seen: Seen) -> Action | None:
    """The one next thing to do for a service; None if it is as wanted, or has to wait."""
    if service.deleted:
        return _plan_deletion(seen)
    attempt = _valid(seen.attempt, service, seen)
    if attempt is not None and (attempt.final or seen.now < attempt.not_before):
        return None
    if not seen.files:
        if seen.waits is None:
            return Prepare()
        return None if (service.state, service.step) == ("Preparing", seen.waits.step) else seen.waits
    if seen.boot_id is None:
        waiting = Report(state="Starting", step="waiting for the server")
        return None if service.state in ("Starting", "Failed") else waiting
    return _plan_model(service, seen.model)


def _plan_model(service: Wanted, model: ModelState | None) -> Action | None:
    if model is not None and model.state == "READY":
        settled = service.state == "Ready" and service.observed_generation == service.generation
        return None if settled else Report(state="Ready", step="Ready")
    if model is not None and model.state in ("LOADING", "UNLOADING"):
        return None
    if service.state == "Ready" and model is not None and model.reason.lower() not in _UNLOADED:
        return Report(state="Failed", step="Failed", reason=model.reason)
    return Load()


def _plan_deletion(seen: Seen) -> Action | None:
    if seen.attempt is not None and seen.now < seen.attempt.not_before:
        return None
    if seen.model is not None and seen.model.state in ("READY", "LOADING"):
        return Unload()
    if seen.files:
        return Remove()
    return Forget()


def _valid(attempt: Attempt | None, service: Wanted, seen: Seen) -> Attempt | None:
    if attempt is None or attempt.generation != service.generation:
        return None
    return attempt if attempt.boot_id == (seen.boot_id or attempt.boot_id) else None


class Servers(Protocol):
    """Answers the server that services run on."""

    def current(self) -> tuple[str, TensorServer] | None:
        """The server's boot id and a client for it, once it knows the keys; None while there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the reconciler works with."""

    services: ServiceStore
    folder: ModelFolder
    sources: Sources
    servers: Servers
    clock: Callable[[], float] = time.monotonic


class ServiceReconciler:
    """Observes, plans and acts for all services."""

    def __init__(self, parts: Parts, busy: Busy) -> None:
        self._parts = parts
        self._busy = busy
        self._attempts: dict[str, Attempt] = {}
        self._index: dict[str, ModelState] | None = None

    def step(self) -> None:
        """One turn over all services; actions run beside it, one a service."""
        rows = self._parts.services.list()
        busy = self._busy.names()
        boot_id, index = self._observe_server() if rows else (None, {})
        environments = self._parts.services.environments() if rows else {}
        for row in rows:
            if row.name in busy:
                continue
            service = Wanted(
                name=row.name,
                generation=row.generation,
                observed_generation=row.observed_generation,
                version=row.version,
                state=row.state,
                step=row.timeline[-1]["step"] if row.timeline else "",
                deleted=row.deleted_at is not None,
            )
            model = internal_name(row.name, row.version)
            seen = Seen(
                files=self._parts.folder.has(model),
                boot_id=boot_id,
                model=index.get(model),
                attempt=self._attempts.get(row.name),
                waits=_waits(row.fields.get("environment"), environments),
                now=self._parts.clock(),
            )
            action = plan(service, seen)
            if action is not None:
                self._busy.run(row.name, lambda s=service, a=action, b=boot_id: self._act(s, a, b))  # type: ignore[misc]

    def _observe_server(self) -> tuple[str | None, dict[str, ModelState]]:
        current = self._parts.servers.current()
        if current is None:
            return None, {}
        boot_id, server = current
        try:
            return boot_id, server.index()
        except ServerUnavailable as error:
            _log.warning("the server's index cannot be read: %s", error)
            return None, {}

    def _act(self, service: Wanted, action: Action, boot_id: str | None) -> None:
        model = internal_name(service.name, service.version)
        try:
            match action:
                case Wait():
                    self._wait(service, action)
                case Prepare():
                    self._prepare(service, model)
                case Load():
                    self._load(service, model)
                case Unload():
                    self._server().unload(model)
                case Remove():
                    self._parts.folder.remove(model)
                case Forget():
                    self._parts.services.forget(service.name)
                    self._attempts.pop(service.name, None)
                case Report():
                    self._report(service, action, boot_id)
        except (Broken, Rejected) as error:
            broken = error if isinstance(error, Broken) else _as_broken(error)
            self._failed(service, boot_id, of_broken(broken, service.name), final=broken.code != "DISK_FULL")
        except LoadRefused as error:
            self._failed(service, boot_id, diagnose(Evidence(text=str(error), service=service.name)), final=True)
        except ServerUnavailable as error:
            evidence = Evidence(text=str(error), service=service.name)
            self._failed(service, boot_id, make("SERVER_UNREACHABLE", evidence), final=False)

    def _wait(self, service: Wanted, action: Wait) -> None:
        evidence = Evidence(text=action.step, service=service.name)
        diagnosis = make(action.code, evidence) if action.code else None
        outcome = Outcome(state="Preparing", step=action.step, diagnosis=diagnosis)
        self._parts.services.report(service.name, service.generation, outcome)

    def _pinned(self, name: str) -> str:
        """The environment with the lock that it has now: a later build changes nothing under a running service."""
        row = self._parts.services.environments().get(name)
        if row is None or row.built is None:
            raise Broken("ENV_NOT_READY", f"environment '{name}' is not READY")
        return f"{name}@{row.built['digest'][:_DIGEST_LETTERS]}"

    def _server(self) -> TensorServer:
        current = self._parts.servers.current()
        if current is None:
            raise ServerUnavailable("the server is being started again")
        return current[1]

    def _prepare(self, service: Wanted, model: str) -> None:
        self._parts.services.report(service.name, service.generation, Outcome(state="Starting", step="preparing files"))
        version = self._parts.services.version(service.name, service.version)
        fields = ServiceFields.model_validate(version.fields)
        source = self._parts.sources.locate(fields.model)
        immutable = fields.model.upload is not None
        environment = self._pinned(fields.environment) if fields.environment else ""
        declared = Declared(inputs=tuple(fields.inputs), outputs=tuple(fields.outputs), environment=environment)
        prepared = self._parts.folder.prepare(model, declared, source, immutable=immutable, trusted=fields.model.trust)
        self._parts.services.prepared(
            service.name, service.version, digest=prepared.digest, config_pbtxt=prepared.config_pbtxt
        )
        self._parts.sources.consumed(fields.model)

    def _load(self, service: Wanted, model: str) -> None:
        self._parts.services.report(service.name, service.generation, Outcome(state="Starting", step="loading"))
        self._server().load(model)
        self._attempts.pop(service.name, None)
        ready = Outcome(state="Ready", step="Ready", observed=True)
        self._parts.services.report(service.name, service.generation, ready)

    def _report(self, service: Wanted, action: Report, boot_id: str | None) -> None:
        if action.reason:
            evidence = Evidence(text=action.reason, service=service.name)
            self._failed(service, boot_id, diagnose(evidence), final=False)
            return
        outcome = Outcome(state=action.state, step=action.step, observed=action.state == "Ready")
        self._parts.services.report(service.name, service.generation, outcome)

    def _failed(self, service: Wanted, boot_id: str | None, diagnosis: Diagnosis, *, final: bool) -> None:
        """Remembers the failure, so that the next try waits, and says why; what may pass is tried again."""
        earlier = self._attempts.get(service.name)
        failures = earlier.failures + 1 if earlier and earlier.generation == service.generation else 1
        wait = min(_FIRST_WAIT_SECONDS * 2 ** (failures - 1), _LONGEST_WAIT_SECONDS)
        self._attempts[service.name] = Attempt(
            generation=service.generation,
            boot_id=boot_id or "",
            failures=failures,
            not_before=self._parts.clock() + wait,
            final=final,
        )
        if not service.deleted:
            state = "Starting" if diagnosis.code == "SERVER_UNREACHABLE" else "Failed"
            failed = Outcome(state=state, step=state, diagnosis=diagnosis, observed=state == "Failed")
            self._parts.services.report(service.name, service.generation, failed)


def _waits(name: str | None, environments: Mapping[str, EnvironmentRow]) -> Wait | None:
    """What keeps a service from its environment; None where it has one, or wants none."""
    if not name:
        return None
    row = environments.get(name)
    if row is None:
        return Wait(step=f"environment '{name}' is gone", code="ENV_NOT_READY")
    if row.built is not None:
        return None
    if row.state == "FAILED":
        words = (row.problem or "").splitlines() or [""]
        return Wait(step=f"environment '{name}' is FAILED: {words[0][:200]}", code="ENV_NOT_READY")
    return Wait(step=f"waiting for environment '{name}' ({row.state})")


def _as_broken(error: Rejected) -> Broken:
    fix = error.fields[0].fix if error.fields else ""
    message = error.fields[0].message if error.fields else error.detail
    code = error.code if error.code.startswith("PATH_") else "PATH_NOT_FOUND"
    return Broken(code, message, fix=fix)
