"""Runs the migrations on the connection that the store hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from naiad.control.store import Table

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
