from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, select

from naiad.control.services.schema import ServiceFields
from naiad.control.services.store import Outcome, ServiceStore
from naiad.control.store import MIGRATIONS, EventRow, Store, Table, record, sqlite_url

FIELDS = ServiceFields.model_validate({"name": "digits", "model": {"path": "x"}})


@pytest.fixture
def store(tmp_path: Path):
    store = Store(sqlite_url(tmp_path / "naiad.db"))
    store.migrate()
    yield store
    store.close()


def test_the_migrations_make_the_tables_of_the_code(store, tmp_path):
    engine = create_engine(sqlite_url(tmp_path / "naiad.db"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
        columns = {column["name"] for column in inspect(connection).get_columns("services")}
    engine.dispose()
    assert {"generation", "observed_generation"} <= columns


def test_migrating_twice_changes_nothing(store):
    ServiceStore(store).create(FIELDS, created_by=None)
    store.migrate()
    assert ServiceStore(store).get("digits").generation == 1


def test_there_is_one_line_of_migrations():
    script = ScriptDirectory(str(MIGRATIONS))
    assert len(script.get_heads()) == 1


def test_the_database_survives_a_power_cut(store, tmp_path):
    with store.read() as session:
        connection = session.connection()
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_transaction_is_all_or_nothing(store):
    with pytest.raises(ZeroDivisionError), store.write() as session:
        record(session, "service", "x", "created")
        _ = 1 / 0
    with store.read() as session:
        assert session.scalars(select(EventRow)).all() == []


def test_events_are_numbered_in_the_order_of_their_commits(store):
    def write() -> None:
        for _ in range(20):
            with store.write() as session:
                record(session, "service", "x", "touched")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with store.read() as session:
        assert list(session.scalars(select(EventRow.id).order_by(EventRow.id))) == list(range(1, 81))


def test_what_the_loop_found_out_about_an_older_generation_is_dropped(store):
    services = ServiceStore(store)
    services.create(FIELDS, created_by=None)
    services.delete("digits")
    services.report("digits", 1, Outcome(state="Ready", step="Ready", observed=True))
    assert services.get("digits").state == "Deleting"


def test_a_change_wakes_the_listeners_after_its_commit(store):
    seen: list[int] = []

    def listen() -> None:
        with store.read() as session:
            seen.append(len(session.scalars(select(EventRow)).all()))

    store.on_change(listen)
    ServiceStore(store).create(FIELDS, created_by=None)
    assert seen == [2]
