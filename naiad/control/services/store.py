"""Reads and writes services: one transaction a change, idempotent by name and generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from naiad import keys
from naiad.control.engines.configuration import pinned_digests
from naiad.control.names import nearest
from naiad.control.problems import AlreadyExists, NoSuchResource, Rejected
from naiad.control.schema import Diagnosis
from naiad.control.services.schema import ServiceFields, stored
from naiad.control.store import EnvironmentRow, KeyRow, ServiceRow, ServiceVersionRow, Store, now, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """What a create did: the row, whether it is new, and the secret of the key made with it."""

    row: ServiceRow
    new: bool
    key_name: str | None = None
    key: keys.Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the loop found out about a service."""

    state: str
    step: str
    diagnosis: Diagnosis | None = None
    observed: bool = False


class ServiceStore:
    """The services of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, fields: ServiceFields, *, created_by: str | None) -> Creation:
        """Wants a service. The same fields again answer what exists; other fields under a taken name are refused."""
        wanted = stored(fields)
        with self._store.write() as session:
            existing = session.get(ServiceRow, fields.name)
            if existing is not None:
                return _again(existing, wanted)
            _refuse_environment(session, fields.environment)
            at = now()
            row = ServiceRow(
                name=fields.name,
                generation=1,
                observed_generation=0,
                fields=wanted,
                version=1,
                state="Pending",
                timeline=[{"step": "Pending", "started": at.isoformat(), "took": None}],
                created_at=at,
                updated_at=at,
            )
            session.add(row)
            session.flush()
            version = ServiceVersionRow(service=row.name, number=1, generation=1, fields=wanted, created_at=at)
            session.add(version)
            key_name, key = _grant(session, fields, created_by)
            record(session, "service", row.name, "created", generation=1)
            return Creation(row=row, new=True, key_name=key_name, key=key)

    def list(self) -> list[ServiceRow]:
        """All services, those being deleted too."""
        with self._store.read() as session:
            return list(session.scalars(select(ServiceRow).order_by(ServiceRow.name)))

    def get(self, name: str) -> ServiceRow:
        """One service; refuses an unknown name with the one that was probably meant."""
        with self._store.read() as session:
            return _get(session, name)

    def environments(self) -> dict[str, EnvironmentRow]:
        """What services may run in, by name."""
        with self._store.read() as session:
            return {row.name: row for row in session.scalars(select(EnvironmentRow))}

    def pinned(self) -> frozenset[str]:
        """The beginnings of the environments' digests that service versions were made with."""
        with self._store.read() as session:
            texts = session.scalars(select(ServiceVersionRow.config_pbtxt))
            return frozenset(digest for text in texts for digest in pinned_digests(text or ""))

    def version(self, name: str, number: int) -> ServiceVersionRow:
        """One version of a service."""
        with self._store.read() as session:
            row = session.get(ServiceVersionRow, (name, number))
            if row is None:
                raise NoSuchResource(f"service '{name}' has no version v{number}")
            return row

    def delete(self, name: str) -> ServiceRow:
        """Wants a service gone; the loop unloads it and forgets it."""
        with self._store.write() as session:
            row = _get(session, name)
            if row.deleted_at is None:
                row.deleted_at = row.updated_at = now()
                row.generation += 1
                row.state = "Deleting"
                _enter(row, "Deleting")
                record(session, "service", name, "deleted", generation=row.generation)
            return row

    def forget(self, name: str) -> None:
        """Removes a deleted service and what only it used: its versions, its default key, its place in other keys."""
        with self._store.write() as session:
            row = session.get(ServiceRow, name)
            if row is None or row.deleted_at is None:
                return
            for key in session.scalars(select(KeyRow)):
                if name in key.services:
                    key.services = [other for other in key.services if other != name]
                    if not key.services and key.scopes == ["infer"]:
                        session.delete(key)
            session.delete(row)
            record(session, "service", name, "gone")

    def prepared(self, name: str, number: int, *, digest: str, config_pbtxt: str | None) -> None:
        """Notes what a version was made of."""
        with self._store.write() as session:
            row = session.get(ServiceVersionRow, (name, number))
            if row is not None:
                row.digest, row.config_pbtxt = digest, config_pbtxt
                record(session, "service", name, "prepared", version=number, digest=digest)

    def report(self, name: str, generation: int, outcome: Outcome) -> None:
        """Writes what the loop found out, unless the service has been changed meanwhile."""
        with self._store.write() as session:
            row = session.get(ServiceRow, name)
            if row is None or row.generation != generation:
                return
            if row.state != outcome.state:
                record(session, "service", name, outcome.state.lower(), step=outcome.step)
            row.diagnosis = outcome.diagnosis.model_dump(mode="json") if outcome.diagnosis else None
            row.state = outcome.state
            row.updated_at = now()
            if outcome.observed:
                row.observed_generation = generation
            _enter(row, outcome.step)


def _again(existing: ServiceRow, wanted: dict[str, Any]) -> Creation:
    name = existing.name
    if existing.deleted_at is not None:
        raise AlreadyExists(f"service '{name}' is being deleted; try again when it is gone")
    differing = sorted(field for field in wanted if wanted[field] != existing.fields.get(field))
    if differing:
        raise AlreadyExists(
            f"service '{name}' exists with other fields ({', '.join(differing)}); a service cannot be changed yet: "
            f"delete it first (naiad rm {name}) or choose another name"
        )
    return Creation(row=existing, new=False)


def _get(session: Session, name: str) -> ServiceRow:
    row = session.get(ServiceRow, name)
    if row is None:
        meant = nearest(name, session.scalars(select(ServiceRow.name)))
        raise NoSuchResource(f"there is no service '{name[:80]}'" + (f"; did you mean '{meant}'?" if meant else ""))
    return row


def _refuse_environment(session: Session, name: str | None) -> None:
    row = session.get(EnvironmentRow, name) if name else None
    if name and (row is None or row.deleted_at is not None):
        meant = nearest(name, session.scalars(select(EnvironmentRow.name)))
        fix = f"did you mean '{meant}'?" if meant else "create it first: naiad env create"
        raise Rejected.field("environment", f"there is no environment '{name}'", code="NOT_FOUND", fix=fix)


def _grant(session: Session, fields: ServiceFields, created_by: str | None) -> tuple[str | None, keys.Secret | None]:
    """Adds the service to the keys it names, or makes its default key."""
    for index, name in enumerate(fields.auth.keys):
        key = session.get(KeyRow, name)
        if key is None or key.revoked_at is not None:
            raise Rejected.field(f"auth.keys[{index}]", f"there is no key '{name}'", code="NOT_FOUND")
        if "*" not in key.services:
            key.services = sorted({*key.services, fields.name})
            key.generation += 1
    if fields.auth.keys or fields.auth.mode == "public":
        return None, None
    secret = keys.make_key()
    row = keys.row(secret, scopes=["infer"], services=[fields.name])
    name = free_key_name(session, f"{fields.name}-default")
    session.add(
        KeyRow(
            name=name,
            id=row["id"],
            digest=row["digest"],
            scopes=["infer"],
            services=[fields.name],
            generation=1,
            created_by=created_by,
            created_at=now(),
        )
    )
    record(session, "key", name, "created", services=[fields.name])
    return name, secret


def free_key_name(session: Session, wanted: str) -> str:
    """`wanted`, or with a number behind it if that name is taken."""
    name, number = wanted, 2
    while session.get(KeyRow, name) is not None:
        name, number = f"{wanted}-{number}", number + 1
    return name


def _enter(row: ServiceRow, step: str) -> None:
    """Ends the timeline's last step and begins `step`; the same step again changes nothing."""
    timeline = [dict(entry) for entry in row.timeline]
    if timeline and timeline[-1]["step"] == step:
        return
    at = now()
    if timeline:
        last = timeline[-1]
        last["took"] = (at - type(at).fromisoformat(last["started"])).total_seconds()
    timeline.append({"step": step, "started": at.isoformat(), "took": None})
    row.timeline = timeline[-20:]
