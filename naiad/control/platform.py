"""Wires one `naiad up`: state folder, store, server, loops and API; the only place that knows all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import select

from naiad import __version__, keys
from naiad.control.api.app import behind_gate, create_app
from naiad.control.api.gate import Hosts, is_address
from naiad.control.api.urls import Urls, bracketed
from naiad.control.caller import KeyFacts
from naiad.control.engines.tensor import ModelFolder, internal_name
from naiad.control.environments.reconciler import EnvironmentReconciler
from naiad.control.environments.reconciler import Parts as EnvironmentParts
from naiad.control.environments.room import EnvironmentRoom
from naiad.control.environments.store import EnvironmentStore
from naiad.control.keys.reconciler import AccessReconciler
from naiad.control.keys.room import KeyRoom
from naiad.control.keys.schema import KeyFields
from naiad.control.keys.store import KeyStore
from naiad.control.reconcile import Busy, Loop
from naiad.control.services.reconciler import Parts, ServiceReconciler
from naiad.control.services.room import ServiceRoom
from naiad.control.services.sources import Sources
from naiad.control.services.store import ServiceStore
from naiad.control.state import Lock, StateFolder, write_private
from naiad.control.store import ServiceRow, Store, sqlite_url
from naiad.environments.reach import Reach
from naiad.environments.store import Store as Builds
from naiad.errors import NaiadError
from naiad.runtimes.base import Runtime

_log = logging.getLogger("naiad.control")
_SETTLE_SECONDS = 1.0
_FIRST_PUSH_SECONDS = 20.0
ADMIN_KEY = "admin"


class PortTaken(NaiadError):
    """The API's address is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformOptions:
    """How `naiad up` was asked to run."""

    state: StateFolder
    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    fetch_allow: tuple[str, ...] = ()
    """Hosts and networks that environments may be fetched from although they are not public."""
    advertise: str | None = None
    most_upload_bytes: int = 64 << 30


class Platform:
    """One running platform; `start`, then `serve` until told to stop, then `stop`."""

    def __init__(self, options: PlatformOptions, runtime: Runtime) -> None:
        state = options.state
        self._options = options
        self._runtime = runtime
        self._lock = Lock(state)
        self._store = Store(sqlite_url(state.database))
        self.services = ServiceStore(self._store)
        self.keys = KeyStore(self._store)
        self._sources = Sources(roots=options.roots, uploads=state.uploads, most_bytes=options.most_upload_bytes)
        self._folder = ModelFolder(state.models, state.scratch)
        self.access = AccessReconciler(self._store, runtime)
        self._access_loop = Loop([self.access], name="naiad-access")
        self._busy = Busy(workers=16, done=self._wake)
        parts = Parts(services=self.services, folder=self._folder, sources=self._sources, servers=self.access)
        self._service_loop = Loop([ServiceReconciler(parts, self._busy)], name="naiad-services")
        self.environments = EnvironmentStore(self._store)
        self._builds = Builds(state.environments)
        self._reach = Reach(options.fetch_allow)
        self._building = Busy(workers=2, done=self._wake)
        wanted = EnvironmentParts(
            environments=self.environments, builds=self._builds, reach=self._reach, pinned=self.services.pinned
        )
        self._environment_loop = Loop([EnvironmentReconciler(wanted, self._building)], name="naiad-environments")
        self._socket: socket.socket | None = None
        self._server: _Server | None = None

    def start(self) -> None:
        """Takes the state folder, binds, starts the server and gives it its keys; raises with one clear message."""
        with contextlib.ExitStack() as undo:
            self._lock.take()
            undo.callback(self._lock.release)
            self._socket = bind(self._options.host, self._options.port)
            undo.callback(self._socket.close)
            self._store.migrate()
            undo.callback(self._store.close)
            self._tidy()
            self._make_admin_key()
            self._runtime.start()
            undo.callback(self._runtime.stop)
            self._store.on_change(self._wake)
            self._runtime.on_change(self._wake)
            self._access_loop.start()
            if not self.access.wait(timeout_seconds=_FIRST_PUSH_SECONDS):
                raise NaiadError("the server did not take its keys; its log is in the state folder's logs/server.log")
            self._service_loop.start()
            self._environment_loop.start()
            undo.pop_all()

    def addresses(self) -> dict[str, Any]:
        """What was bound, and the URLs under which this machine's own caller reaches it."""
        running = self._runtime.running()
        port = self._socket.getsockname()[1] if self._socket else self._options.port
        host = bracketed(self._options.advertise or reachable(self._options.host))
        http_port = running.http.rpartition(":")[2] if running else None
        grpc_port = running.grpc.rpartition(":")[2] if running and running.grpc else None
        return {
            "api": f"{bracketed(self._options.host)}:{port}",
            "http": running.http if running else None,
            "grpc": running.grpc if running else None,
            "metrics": running.metrics if running else None,
            "api_url": f"http://{host}:{port}",
            "http_url": f"http://{host}:{http_port}" if http_port else None,
            "grpc_url": f"{host}:{grpc_port}" if grpc_port else None,
        }

    def serve(self, *, ready: Callable[[], None]) -> None:
        """Answers until SIGTERM or SIGINT; calls `ready` once it accepts connections."""
        app = create_app(*self.rooms(), version=__version__)
        hosts = Hosts(bound=self._options.host, allowed=frozenset(host.lower() for host in self._options.allowed_hosts))
        config = uvicorn.Config(
            behind_gate(app, StoreRing(self.keys, self._store), hosts),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=64 << 10,
        )
        self._server = _Server(config)
        asyncio.run(self._serve(self._server, ready))

    def ask_to_stop(self) -> None:
        """Has `serve` return once the running requests are answered."""
        if self._server is not None:
            self._server.ask_to_stop()

    async def _serve(self, server: _Server, ready: Callable[[], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, server.ask_to_stop)
        if self._socket is None:
            raise RuntimeError("serve() comes after start()")
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        await serving

    def stop(self) -> None:
        """Ends the loops, then the server, then gives the state folder back."""
        self._environment_loop.stop(timeout_seconds=1)
        self._service_loop.stop(timeout_seconds=1)
        self._builds.stop()
        self._building.close()
        self._busy.close()
        self._access_loop.stop(timeout_seconds=1)
        self.access.close()
        self._runtime.stop()
        self._store.close()
        self._lock.release()

    def settle(self) -> bool:
        """Has the server know what is in the store; False if that takes longer than a second."""
        return self.access.wait(timeout_seconds=_SETTLE_SECONDS)

    def rooms(self) -> tuple[ServiceRoom, KeyRoom, EnvironmentRoom]:
        """What the routes of services, of keys and of environments work with."""
        urls = Urls(server=self._runtime.running, advertise=self._options.advertise)
        services = ServiceRoom(
            store=self.services,
            sources=self._sources,
            logs=self._options.state.logs,
            reach=urls.service,
            settle=self.settle,
        )
        environments = EnvironmentRoom(
            store=self.environments, builds=self._builds, roots=self._options.roots, reach=self._reach
        )
        return services, KeyRoom(store=self.keys, settle=self.settle), environments

    def _wake(self) -> None:
        self._access_loop.wake()
        self._service_loop.wake()
        self._environment_loop.wake()

    def _tidy(self) -> None:
        """Removes what a crash left behind: files that no service version claims, uploads that nothing waits for."""
        rows = self.services.list()
        claimed = {internal_name(row.name, row.version) for row in rows}
        for name in self._folder.names() - claimed:
            self._folder.remove(name)
        self._sources.sweep({row.fields["model"]["upload"] for row in rows if row.fields["model"]["upload"]})

    def _make_admin_key(self) -> None:
        """Keeps one admin key for this machine's CLI in a 0600 file; made anew if the file does not hold it."""
        path = self._options.state.admin_key
        text = path.read_text("ascii").strip() if path.is_file() else ""
        identifier = keys.key_id(text)
        known = self.keys.find(identifier) if identifier else None
        if known is not None and known.digest == keys.digest(text):
            return
        secret = keys.make_key()
        write_private(path, secret.reveal() + "\n")
        self.keys.put(ADMIN_KEY, secret, KeyFields(name=ADMIN_KEY, services=["*"], scopes=["admin"]))


class StoreRing:
    """The gate's view of the store."""

    def __init__(self, key_store: KeyStore, store: Store) -> None:
        self._keys = key_store
        self._store = store

    def find(self, identifier: str) -> KeyFacts | None:
        """The key with this id, if there is one that is not revoked."""
        row = self._keys.find(identifier)
        if row is None:
            return None
        return KeyFacts(
            name=row.name,
            digest=row.digest,
            scopes=frozenset(row.scopes),
            services=frozenset(row.services),
            expires=int(row.expires_at.replace(tzinfo=UTC).timestamp()) if row.expires_at else None,
        )

    def is_public(self, service: str) -> bool:
        """Whether a service needs no key."""
        with self._store.read() as session:
            fields = session.scalar(select(ServiceRow.fields).where(ServiceRow.name == service))
        return fields is not None and fields["auth"]["mode"] == "public"


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: the platform stops in its own order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the process's signals alone."""
        yield

    def ask_to_stop(self) -> None:
        """Ends after the running requests; asked twice, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A bound socket for the API; says who to change when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"the API cannot listen on {bracketed(host)}:{port}: {error.strerror}; "
            "choose another with --port (0 picks one)"
        ) from error
    return listener


def reachable(host: str) -> str:
    """An address of this machine that others can use, where it listens on all of them."""
    if host not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing; only asks which interface leads out
            address = probe.getsockname()[0]
            if is_address(address) and address != "0.0.0.0":
                return str(address)
    return socket.gethostname()
