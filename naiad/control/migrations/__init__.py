"""Migrations of the state database, run by Alembic under the state folder's lock."""
