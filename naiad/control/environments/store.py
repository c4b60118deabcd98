"""Reads and writes environments: one transaction a change, idempotent by name and generation."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from naiad.control.environments.schema import TITLES_ZH, Environment, EnvironmentFields, EnvironmentStatus, stored
from naiad.control.names import nearest
from naiad.control.problems import AlreadyExists, InUse, NoSuchResource
from naiad.control.store import EnvironmentRow, ServiceRow, Store, now, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the loop found out about an environment."""

    state: str
    problem: str | None = None
    built: dict[str, Any] | None = None
    observed: bool = False


class EnvironmentStore:
    """The environments of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, fields: EnvironmentFields) -> tuple[EnvironmentRow, bool]:
        """Wants an environment; the same fields again answer what exists, other fields are refused."""
        wanted = stored(fields)
        with self._store.write() as session:
            existing = session.get(EnvironmentRow, fields.name)
            if existing is None:
                return _new(session, fields.name, wanted), True
            _refuse_deleted(existing)
            if existing.fields != wanted:
                text = f"environment '{fields.name}' exists with other fields; change it with PUT, or remove it first"
                raise AlreadyExists(text)
            return existing, False

    def apply(self, fields: EnvironmentFields) -> EnvironmentRow:
        """Wants an environment to be made of this; builds it anew where that is a change."""
        wanted = stored(fields)
        with self._store.write() as session:
            row = session.get(EnvironmentRow, fields.name)
            if row is None:
                return _new(session, fields.name, wanted)
            _refuse_deleted(row)
            if row.fields != wanted:
                row.fields = wanted
                _again(session, row, "changed")
            return row

    def rebuild(self, name: str) -> EnvironmentRow:
        """Wants it built anew from what its index holds now."""
        with self._store.write() as session:
            row = _get(session, name)
            _refuse_deleted(row)
            _again(session, row, "rebuild")
            return row

    def list(self) -> list[EnvironmentRow]:
        """All of them, those being deleted too."""
        with self._store.read() as session:
            return list(session.scalars(select(EnvironmentRow).order_by(EnvironmentRow.name)))

    def get(self, name: str) -> EnvironmentRow:
        """One environment; refuses an unknown name with the one that was probably meant."""
        with self._store.read() as session:
            return _get(session, name)

    def used_by(self) -> dict[str, Sequence[str]]:
        """The services that name each environment."""
        users: dict[str, builtins.list[str]] = {}
        with self._store.read() as session:
            for service in session.scalars(select(ServiceRow).order_by(ServiceRow.name)):
                users.setdefault(service.fields.get("environment") or "", []).append(service.name)
        return dict(users)

    def delete(self, name: str) -> EnvironmentRow:
        """Wants an environment gone; refused while a service names it."""
        with self._store.write() as session:
            row = _get(session, name)
            users = [s.name for s in session.scalars(select(ServiceRow)) if s.fields.get("environment") == name]
            if users:
                raise InUse(f"environment '{name}' is used by {', '.join(sorted(users))}; delete them first")
            if row.deleted_at is None:
                row.deleted_at = row.updated_at = now()
                row.generation += 1
                row.state = "DELETING"
                record(session, "environment", name, "deleted", generation=row.generation)
            return row

    def forget(self, name: str) -> None:
        """Removes a deleted environment of which nothing is left."""
        with self._store.write() as session:
            row = session.get(EnvironmentRow, name)
            if row is not None and row.deleted_at is not None:
                session.delete(row)
                record(session, "environment", name, "gone")

    def report(self, name: str, generation: int, outcome: Outcome) -> None:
        """Writes what the loop found out, unless the environment has been changed meanwhile."""
        with self._store.write() as session:
            row = session.get(EnvironmentRow, name)
            if row is None or row.generation != generation or row.deleted_at is not None:
                return
            if row.state != outcome.state:
                record(session, "environment", name, outcome.state.lower())
            row.state, row.problem, row.updated_at = outcome.state, outcome.problem, now()
            if outcome.built is not None:
                row.built = outcome.built
            if outcome.observed:
                row.observed_generation = generation


def view(row: EnvironmentRow, used_by: Sequence[str]) -> Environment:
    """An environment as the API gives it."""
    built = row.built or {}
    status = EnvironmentStatus.model_validate(
        {
            "state": row.state,
            "title_zh": TITLES_ZH[row.state],
            "problem": row.problem,
            "used_by": list(used_by),
            **{name: built.get(name) for name in ("python", "digest", "built_at")},
            "packages": built.get("packages", []),
        }
    )
    times = {"created_at": row.created_at, "updated_at": row.updated_at}
    numbers = {"generation": row.generation, "observed_generation": row.observed_generation}
    return Environment.model_validate(row.fields | {"status": status} | numbers | times)


def _new(session: Session, name: str, wanted: dict[str, Any]) -> EnvironmentRow:
    at = now()
    row = EnvironmentRow(
        name=name,
        generation=1,
        observed_generation=0,
        fields=wanted,
        state="PENDING",
        created_at=at,
        updated_at=at,
    )
    session.add(row)
    record(session, "environment", name, "created", generation=1)
    return row


def _again(session: Session, row: EnvironmentRow, what: str) -> None:
    row.generation += 1
    row.updated_at = now()
    record(session, "environment", row.name, what, generation=row.generation)


def _get(session: Session, name: str) -> EnvironmentRow:
    row = session.get(EnvironmentRow, name)
    if row is None:
        meant = nearest(name, session.scalars(select(EnvironmentRow.name)))
        raise NoSuchResource(f"there is no environment '{name[:80]}'" + (f"; did you mean '{meant}'?" if meant else ""))
    return row


def _refuse_deleted(row: EnvironmentRow) -> None:
    if row.deleted_at is not None:
        raise AlreadyExists(f"environment '{row.name}' is being deleted; try again when it is gone")
