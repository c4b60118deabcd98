"""The documents of an API key as the API takes and gives them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from naiad.control.schema import Document

Scope = Literal["infer", "manage", "metrics", "admin"]
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(value: object) -> object:
    """A moment from `30d`, `12h` or an ISO date; other values are left to the next check."""
    if isinstance(value, str) and value[:-1].isdigit() and value[-1:] in _UNITS:
        return datetime.now(UTC) + timedelta(**{_UNITS[value[-1]]: int(value[:-1])})
    return value


def _utc(value: datetime) -> datetime:
    zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).replace(tzinfo=None, microsecond=0)


Moment = Annotated[datetime, BeforeValidator(moment), AfterValidator(_utc)]
KeyName = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=2, max_length=100)]


class KeyFields(Document):
    """What a new key may do; `services` are names, or `*` alone."""

    name: KeyName | None = None
    services: Annotated[list[str], Field(max_length=1000)] = Field(default_factory=list)
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)] = Field(default=["infer"])
    expires: Moment | None = None


class Key(Document):
    """A key as lists show it: never the secret."""

    name: str
    prefix: str
    services: list[str]
    scopes: list[Scope]
    expires: datetime | None
    status: Literal["Active", "Expired", "Revoked"]
    generation: int
    created_by: str | None
    created_at: datetime


class CreatedKey(Key):
    """The answer to a create: the only time the secret is shown."""

    key: str


class KeyList(Document):
    """All keys, by name."""

    items: list[Key]
