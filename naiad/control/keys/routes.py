"""The API's routes of keys: create, list, read, revoke."""

from __future__ import annotations

from fastapi import APIRouter

from naiad.control.caller import Caller, KeyFacts
from naiad.control.keys.room import Room
from naiad.control.keys.schema import CreatedKey, Key, KeyFields, KeyList
from naiad.control.keys.store import view
from naiad.control.problems import Forbidden

router = APIRouter(prefix="/keys", tags=["keys"])


@router.post("", status_code=201)
def create_key(fields: KeyFields, room: Room, caller: Caller) -> CreatedKey:
    """Makes a key; the secret is in this answer only."""
    _may_grant(caller, fields)
    row, secret = room.store.create(fields, created_by=caller.name)
    room.settle()
    return CreatedKey.model_validate(view(row).model_dump() | {"key": secret.reveal()})


@router.get("")
def list_keys(room: Room) -> KeyList:
    """All keys; never a secret."""
    return KeyList(items=[view(row) for row in room.store.list()])


@router.get("/{name}")
def read_key(name: str, room: Room) -> Key:
    """One key; never its secret."""
    return view(room.store.get(name))


@router.delete("/{name}")
def revoke_key(name: str, room: Room, caller: Caller) -> Key:
    """Makes a key worthless; effective when this answers."""
    row = room.store.get(name)
    if {"manage", "admin"} & set(row.scopes) and "admin" not in caller.scopes:
        raise Forbidden(f"revoking '{name}', a key of scope {'/'.join(row.scopes)}, needs a key of scope 'admin'")
    revoked = room.store.revoke(name)
    room.settle()
    return view(revoked)


def _may_grant(caller: KeyFacts, fields: KeyFields) -> None:
    """A key never grants more than it has itself."""
    if "admin" in caller.scopes:
        return
    wide = sorted(set(fields.scopes) - {"infer"})
    if wide:
        raise Forbidden(f"making a key of scope '{wide[0]}' needs a key of scope 'admin'")
    if "*" in fields.services:
        raise Forbidden("making a key for all services ('*') needs a key of scope 'admin'")
