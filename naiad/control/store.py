"""Keeps the wanted state in SQLite: tables, transactions, and the one writer that numbers the events.

Every change is one `write()` transaction (`BEGIN IMMEDIATE`, `synchronous=FULL`), so a crash leaves all of it or
nothing. A process-wide lock is held until the commit is done: events are numbered in the order in which they become
visible.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, Engine, ForeignKey, String, create_engine, event, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_SECONDS = 10


def now() -> datetime:
    """The present, in UTC without a zone, as the database stores it."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


class Table(DeclarativeBase):
    """Root of the tables; the migrations, not this class, create them."""

    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, list[dict[str, Any]]: JSON}  # noqa: RUF012


class ServiceRow(Table):
    """A service that somebody wants."""

    __tablename__ = "services"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    generation: Mapped[int]
    observed_generation: Mapped[int] = mapped_column(default=0)
    fields: Mapped[dict[str, Any]]
    version: Mapped[int]
    state: Mapped[str] = mapped_column(String(32))
    diagnosis: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    timeline: Mapped[list[dict[str, Any]]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class ServiceVersionRow(Table):
    """What one version of a service is made of; never changed once materialised."""

    __tablename__ = "service_versions"
    service: Mapped[str] = mapped_column(ForeignKey("services.name", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    generation: Mapped[int]
    fields: Mapped[dict[str, Any]]
    digest: Mapped[str | None] = mapped_column(String(64))
    config_pbtxt: Mapped[str | None]
    created_at: Mapped[datetime]


class EnvironmentRow(Table):
    """An environment that somebody wants; what was built of it lies in the state folder."""

    __tablename__ = "environments"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    generation: Mapped[int]
    observed_generation: Mapped[int] = mapped_column(default=0)
    fields: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(32))
    problem: Mapped[str | None]
    built: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class KeyRow(Table):
    """An API key: its digest, never the key."""

    __tablename__ = "keys"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    id: Mapped[str] = mapped_column(String(8), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]]
    services: Mapped[list[str]]
    generation: Mapped[int]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_by: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[datetime]


class EventRow(Table):
    """Something that happened, in the order in which it was committed."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(128))
    what: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]]


class Store:
    """The database of one state folder."""

    def __init__(self, url: str) -> None:
        self._engine = _make_engine(url)
        self._writer = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def migrate(self) -> None:
        """Brings the database to the newest schema; the caller holds the state folder's lock."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after each commit; it must return at once."""
        self._listeners.append(listener)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one consistent state and changes nothing."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed at the end, or undone if its body raises."""
        with self._writer:
            with Session(self._engine, expire_on_commit=False) as session:
                session.connection(execution_options={"naiad_write": True})
                yield session
                session.commit()
        for listener in self._listeners:
            listener()

    def close(self) -> None:
        """Closes the database; a write-ahead log is folded in by the last to close."""
        self._engine.dispose()


def record(session: Session, kind: str, name: str, what: str, **detail: Any) -> int:
    """Writes an event inside a `write()` transaction and answers its number."""
    number = last_event(session) + 1
    session.add(EventRow(id=number, at=now(), kind=kind, name=name, what=what, detail=detail))
    session.flush()
    return number


def last_event(session: Session) -> int:
    """The number of the newest event; 0 if nothing ever happened."""
    return session.scalar(select(func.max(EventRow.id))) or 0


def sqlite_url(path: Path) -> str:
    """The database URL of a SQLite file."""
    return f"sqlite:///{path}"


def _make_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_SECONDS} if url.startswith("sqlite") else {})
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("naiad_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
