"""Reads and writes API keys, and answers the gate's look-ups."""

from __future__ import annotations

from sqlalchemy import select

from naiad import keys
from naiad.control.keys.schema import Key, KeyFields
from naiad.control.names import nearest
from naiad.control.problems import AlreadyExists, NoSuchResource, Rejected
from naiad.control.store import KeyRow, ServiceRow, Store, now, record


class KeyStore:
    """The keys of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, fields: KeyFields, *, created_by: str | None) -> tuple[KeyRow, keys.Secret]:
        """Makes a key; its secret exists in this answer and nowhere else."""
        _check(fields)
        secret = keys.make_key()
        with self._store.write() as session:
            for index, service in enumerate(fields.services):
                if service != "*" and session.get(ServiceRow, service) is None:
                    raise Rejected.field(
                        f"services[{index}]", f"there is no service '{service[:80]}'", code="NOT_FOUND"
                    )
            name = fields.name or self._free_name(fields, taken=set(session.scalars(select(KeyRow.name))))
            if session.get(KeyRow, name) is not None:
                raise AlreadyExists(f"there is a key '{name}' already; choose another name or revoke it first")
            row = _row(name, secret, fields)
            row.created_by = created_by
            session.add(row)
            record(session, "key", name, "created", services=list(fields.services), scopes=list(fields.scopes))
            return row, secret

    @staticmethod
    def _free_name(fields: KeyFields, taken: set[str]) -> str:
        stem = fields.services[0] if fields.services and fields.services[0] != "*" else fields.scopes[0]
        number = 1
        while f"{stem}-{number}" in taken:
            number += 1
        return f"{stem}-{number}"

    def put(self, name: str, secret: keys.Secret, fields: KeyFields) -> None:
        """Makes `secret` the key of that name, whatever was there: for the key that `naiad up` keeps for its CLI."""
        with self._store.write() as session:
            old = session.get(KeyRow, name)
            if old is not None:
                session.delete(old)
                session.flush()
            session.add(_row(name, secret, fields))
            record(session, "key", name, "created", scopes=list(fields.scopes))

    def list(self) -> list[KeyRow]:
        """All keys, revoked ones too."""
        with self._store.read() as session:
            return list(session.scalars(select(KeyRow).order_by(KeyRow.name)))

    def get(self, name: str) -> KeyRow:
        """One key; refuses an unknown name."""
        with self._store.read() as session:
            row = session.get(KeyRow, name)
            if row is None:
                meant = nearest(name, session.scalars(select(KeyRow.name)))
                hint = f"; did you mean '{meant}'?" if meant else ""
                raise NoSuchResource(f"there is no key '{name[:80]}'{hint}")
            return row

    def revoke(self, name: str) -> KeyRow:
        """Makes a key worthless, for ever."""
        self.get(name)
        with self._store.write() as session:
            row = session.get_one(KeyRow, name)
            if row.revoked_at is None:
                row.revoked_at = now()
                row.generation += 1
                record(session, "key", name, "revoked")
            return row

    def find(self, identifier: str) -> KeyRow | None:
        """The key with this id, if it is not revoked."""
        with self._store.read() as session:
            return session.scalar(select(KeyRow).where(KeyRow.id == identifier, KeyRow.revoked_at.is_(None)))


def view(row: KeyRow) -> Key:
    """A key as lists show it."""
    expired = row.expires_at is not None and row.expires_at <= now()
    return Key.model_validate(
        {
            "name": row.name,
            "prefix": f"nk_{row.id}",
            "services": row.services,
            "scopes": row.scopes,
            "expires": row.expires_at,
            "status": "Revoked" if row.revoked_at else "Expired" if expired else "Active",
            "generation": row.generation,
            "created_by": row.created_by,
            "created_at": row.created_at,
        }
    )


def _check(fields: KeyFields) -> None:
    if "infer" in fields.scopes and not fields.services and not {"manage", "admin"} & set(fields.scopes):
        raise Rejected.field("services", "a key of scope 'infer' names its services", fix="name one, or '*' for all")
    if "*" in fields.services and len(fields.services) > 1:
        raise Rejected.field("services", "'*' means all services and stands alone")


def _row(name: str, secret: keys.Secret, fields: KeyFields) -> KeyRow:
    row = keys.row(secret, scopes=fields.scopes, services=fields.services)
    return KeyRow(
        name=name,
        id=row["id"],
        digest=row["digest"],
        scopes=list(dict.fromkeys(fields.scopes)),
        services=list(dict.fromkeys(fields.services)),
        generation=1,
        expires_at=fields.expires,
        created_at=now(),
    )
