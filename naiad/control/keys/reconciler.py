"""Gives the server the whole access snapshot whenever it changes, or whenever the server is a new one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import select

from naiad import keys
from naiad.control.engines.tensor import ServerUnavailable, TensorServer, internal_name
from naiad.control.store import KeyRow, ServiceRow, Store, last_event
from naiad.runtimes.base import Running, Runtime

_log = logging.getLogger("naiad.control")


def snapshot(
    generation: int, services: Sequence[ServiceRow], key_rows: Sequence[KeyRow], platform_key: keys.Secret
) -> dict[str, Any]:
    """The access snapshot: who may call what, and which model answers for which service."""
    live = [service for service in services if service.deleted_at is None]
    own = keys.row(platform_key, scopes=["admin"], services=["*"])
    return {
        "generation": generation,
        "keys": [own, *(_key(row) for row in key_rows if row.revoked_at is None)],
        "aliases": {s.name: [{"model": internal_name(s.name, s.version), "weight": 100}] for s in live},
        "services": {s.name: {"mode": s.fields["auth"]["mode"], "header": None, "parameters": []} for s in live},
        "limits": {},
    }


def _key(row: KeyRow) -> dict[str, Any]:
    expires = None if row.expires_at is None else int(row.expires_at.replace(tzinfo=UTC).timestamp())
    return {"id": row.id, "digest": row.digest, "scopes": row.scopes, "services": row.services, "expires": expires}


class AccessReconciler:
    """Keeps one server's keys, aliases and services as the store has them."""

    def __init__(
        self, store: Store, runtime: Runtime, *, connect: Callable[[Running], TensorServer] = TensorServer
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._connect = connect
        self._pushed = threading.Condition()
        self._boot_id: str | None = None
        self._server: TensorServer | None = None
        self._generation = -1

    def current(self) -> tuple[str, TensorServer] | None:
        """The server's boot id and a client for it, once it has been given the keys."""
        with self._pushed:
            if self._boot_id is None or self._server is None or self._generation < 0:
                return None
            return self._boot_id, self._server

    def step(self) -> None:
        """Pushes what the server does not have yet."""
        running = self._runtime.running()
        if running is None:
            self._forget()
            return
        if running.boot_id != self._boot_id:
            self._forget()
            with self._pushed:
                self._server, self._boot_id = self._connect(running), running.boot_id
        with self._store.read() as session:
            generation = last_event(session)
            if generation == self._generation:
                return
            services = list(session.scalars(select(ServiceRow)))
            key_rows = list(session.scalars(select(KeyRow)))
        self._push(snapshot(generation, services, key_rows, running.key))

    def _push(self, document: dict[str, Any]) -> None:
        if self._server is None:
            return
        try:
            boot_id, generation = self._server.put_access(document)
        except ServerUnavailable as error:
            _log.warning("the access snapshot did not reach the server: %s", error)
            return
        with self._pushed:
            if boot_id == self._boot_id:
                self._generation = generation
                self._pushed.notify_all()

    def wait(self, *, timeout_seconds: float) -> bool:
        """Waits until the server has what is in the store now; False if it is not there in time."""
        with self._store.read() as session:
            wanted = last_event(session)
        end = time.monotonic() + timeout_seconds
        with self._pushed:
            return self._pushed.wait_for(lambda: self._generation >= wanted, timeout=end - time.monotonic())

    def close(self) -> None:
        """Ends the connections to the server."""
        self._forget()

    def _forget(self) -> None:
        with self._pushed:
            server, self._server, self._boot_id, self._generation = self._server, None, None, -1
        if server is not None:
            server.close()
