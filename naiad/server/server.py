"""`naiad serve`: wires core, supervisor, loader and control mode, and takes them down again."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import logging
import os
import resource
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from naiad import __version__, keys, settings
from naiad._core import Core, CoreError
from naiad.errors import ConfigError, NaiadError
from naiad.server import backend_config, control_mode, keys_file, logs, metrics, restricted
from naiad.server.backend_config import BackendConfig
from naiad.server.interpreter import InterpreterOptions, Interpreters
from naiad.server.lanes import Lanes
from naiad.server.loader import Loader, LoaderOptions
from naiad.server.main_thread import MainThread
from naiad.server.models import Models, ModelsOptions, Refused
from naiad.server.options import ServeOptions, cache_byte_size, trace_options
from naiad.server.starter import StarterOptions
from naiad.server.states import States
from naiad.server.supervisor import Supervisor, SupervisorOptions

log = logging.getLogger("naiad.server")

_PR_SET_CHILD_SUBREAPER = 36
_KEYS_POLL_SECS = 0.5


class StartError(NaiadError):
    """Why the server does not start; the message holds the fix."""


def core_options(options: ServeOptions) -> dict[str, Any]:
    """The document of `Core(options)`."""
    loopback = is_loopback(options.http_address)
    http = {
        "address": options.http_address,
        "port": options.http_port,
        "reuse_port": options.reuse_http_port,
        "restricted": restricted.rows(options.http_restricted_api),
        "forward": options.http_header_forward_pattern,
        "tls": _tls(options.http_tls_cert, options.http_tls_key),
    }
    grpc = {
        "address": options.grpc_address,
        "port": options.grpc_port,
        "reuse_port": options.reuse_grpc_port,
        "restricted": restricted.rows(options.grpc_restricted_protocol),
        "forward": options.grpc_header_forward_pattern,
        "tls": _tls(
            options.grpc_server_cert,
            options.grpc_server_key,
            client_roots=options.grpc_root_cert if options.grpc_use_ssl_mutual else None,
        ),
    }
    # Off loopback a key is required, and which names lead here is the network's business.
    hosts = list(options.allowed_host) or ([] if loopback else ["*"])
    return {
        "server_id": options.id,
        "server_version": __version__,
        "http": http if options.allow_http else None,
        "grpc": grpc if options.allow_grpc else None,
        "grpc_connections": {
            "keepalive_time_millis": options.grpc_keepalive_time,
            "keepalive_timeout_millis": options.grpc_keepalive_timeout,
            "max_age_millis": options.grpc_max_connection_age,
            "max_age_grace_millis": options.grpc_max_connection_age_grace,
            "compression": options.grpc_infer_response_compression_level,
        },
        "max_input_size": options.http_max_input_size,
        "max_binary_size": options.http_max_binary_size,
        "allow_client_shm": options.allow_client_shm,
        "require_key": options.require_key or options.keys_file is not None,
        "bootstrap_key": _bootstrap(options),
        "allow_file_override": options.allow_file_override,
        "model_control": options.model_control_mode,
        "io_threads": options.io_threads,
        "byte_budget": options.byte_budget or memory_bytes() // 4,
        "cache_byte_size": cache_byte_size(options),
        "busy_poll_us": options.busy_poll_us,
        "allowed_hosts": hosts,
        "metrics": metrics.metrics_options(options),
        "cors_origins": list(options.http_cors_allowed_origin),
        "trace": trace_options(options),
        **_logs(options),
    }


def _logs(options: ServeOptions) -> dict[str, Any]:
    """Where records and lines about requests go."""
    levels = {"info": options.log_info, "warning": options.log_warning, "error": options.log_error}
    at_terminal = options.log_file is None and sys.stderr.isatty()
    return {
        "access_log": {
            "file": str(options.access_log) if options.access_log else None,
            "rate": options.access_log_rate,
        },
        "log": {
            "format": options.log_format or ("default" if at_terminal else "json"),
            "level": {**levels, "verbose": options.log_verbose},
            "file": str(options.log_file) if options.log_file else None,
            "dir": str(options.log_dir) if options.log_dir else None,
        },
    }


def _tls(cert: Path | None, key: Path | None, *, client_roots: Path | None = None) -> dict[str, str | None] | None:
    """Where a listener's certificate and key lie, if it is to encrypt."""
    if cert is None or key is None:
        return None
    return {"cert": str(cert), "key": str(key), "client_roots": str(client_roots) if client_roots else None}


def is_loopback(address: str) -> bool:
    """Whether an address reaches this machine only."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def memory_bytes() -> int:
    """The memory that this process may use: the machine's, or its cgroup's if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _bootstrap(options: ServeOptions) -> str | None:
    if options.bootstrap_key_fd is None:
        return None
    with os.fdopen(options.bootstrap_key_fd) as file:
        key = file.readline().strip()
    if not key:
        raise StartError("option --bootstrap-key-fd: the descriptor holds no key")
    return keys.digest(key)


def check(options: ServeOptions) -> None:
    """Refuses what must not start; raises `StartError`."""
    for repository in options.model_repository:
        if not repository.is_dir():
            raise StartError(f"model repository '{repository}' is no folder; create it or name another one")
    for name in ("ready-fd", "lifeline-fd", "bootstrap-key-fd"):
        descriptor = getattr(options, name.replace("-", "_"))
        if descriptor is not None and not _is_open(descriptor):
            raise StartError(f"option --{name}: descriptor {descriptor} is not open; the caller has to pass it on")
    protected = options.require_key or options.keys_file is not None
    if "*" in options.http_cors_allowed_origin and not protected:
        raise StartError(
            "--http-cors-allowed-origin '*' lets every web page call this server, and no key is required;\n"
            "list the pages, or ask for a key with --keys-file or --require-key"
        )
    listeners = (
        ("http-address", options.allow_http, options.http_address, "infer --service '*'"),
        ("grpc-address", options.allow_grpc, options.grpc_address, "infer --service '*'"),
        ("metrics-address", options.allow_metrics, metrics.address(options), "metrics"),
    )
    for name, is_on, address, scope in listeners:
        if not is_on or protected or is_loopback(address):
            continue
        raise StartError(
            f"--{name} {address} can be reached by other machines, and no key is required;\n"
            "make one:\n"
            f"  naiad key create --keys-file keys.json --scope {scope}\n"
            "and start with --keys-file keys.json"
        )


def backends(options: ServeOptions) -> BackendConfig:
    """What `--backend-config` says; raises `StartError`."""
    try:
        return backend_config.parse(options.backend_config)
    except ConfigError as error:
        raise StartError(str(error)) from error


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except (OSError, OverflowError):
        return False
    return True


class InferenceServer:
    """A started server."""

    def __init__(self, options: ServeOptions) -> None:
        check(options)
        self._options = options
        self._backends = backends(options)
        self._limit = _raise_descriptor_limit()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            self._core = Core(json.dumps(core_options(options)).encode())
            self._addresses: dict[str, Any] = json.loads(self._core.start())
        except CoreError as error:
            raise StartError(error.args[1]) from error
        logs.install(self._core.log)
        self._stopped = threading.Event()
        self._ending = threading.Lock()
        self._main = MainThread(lifeline=options.lifeline_fd)
        supervisor_options = SupervisorOptions(
            linger_secs=options.worker_linger_secs, base_environment=dict(os.environ), descriptor_limit=self._limit
        )
        self._supervisor = Supervisor(self._core, options=supervisor_options, run_on_main=self._main.call)
        self._states = States(self._core.set_index, self._core.set_ready, strict=options.strict_readiness)
        self._hold = settings.read().delay_scheduler
        interpreter_options = InterpreterOptions(
            own=sys.executable,
            environments=options.environments or settings.read().state_home / "naiad" / "environments",
            repositories=options.model_repository,
            allow_paths=options.allow_environment_path,
            environ=dict(os.environ),
        )
        starter_options = StarterOptions(
            load_timeout_secs=options.model_load_timeout_secs,
            backends=self._backends,
            threads=options.model_threads,
            verbose=options.log_verbose > 0,
            interpreters=Interpreters(interpreter_options),
        )
        loader_options = LoaderOptions(
            complete_configs=not options.disable_auto_complete_config, hold=self._hold, starter=starter_options
        )
        models_options = ModelsOptions(
            repositories=options.model_repository,
            config_name=options.model_config_name or None,
            load_retries=options.model_load_retry_count,
        )
        self._models = Models(
            self._core,
            loader=Loader(self._supervisor, loader_options),
            supervisor=self._supervisor,
            states=self._states,
            options=models_options,
        )
        self._lanes = Lanes(options.model_load_thread_count, name="load")
        self._watch: control_mode.Repeated | None = None
        self._status = 0

    def run(self) -> int:
        """Serves until a signal or the end of the lifeline; the exit status."""
        path = self._options.keys_file
        self._keys_stamp = keys_file.stamp(path) if path is not None else None  # before they are read, to miss nothing
        try:
            if path is not None:
                self._push_keys(path, generation=1)
        except ConfigError as error:
            self._core.stop()
            raise StartError(str(error)) from error
        self._main.listen()
        self._say_ready()
        for target in (self._dispatch, self._load_at_start, self._watch_keys):
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True).start()
        status = self._main.run(self._shut_down)
        return status or self._status

    def _say_ready(self) -> None:
        line = {**{name: self._addresses[name] for name in ("http", "grpc", "metrics")}, "pid": os.getpid()}
        line["boot_id"] = self._addresses["boot_id"]
        if self._options.ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):  # who asked has gone; a lifeline would say whether that matters
                os.write(self._options.ready_fd, json.dumps(line).encode() + b"\n")
            os.close(self._options.ready_fd)
        log.info("listening", extra={"fields": line})
        if self._hold:
            log.warning("hooks for tests are on", extra={"fields": {"delay_scheduler": self._hold}})
        if self._options.ignored:
            log.warning("options without effect", extra={"fields": {"options": list(self._options.ignored)}})
        for note in self._backends.notes:
            log.warning(note)

    # -- models -----------------------------------------------------------------------------------------------------

    def _load_at_start(self) -> None:
        options = self._options
        try:
            self._watch = self._watched()  # first, so that what changes from now on is seen
            names = control_mode.names_at_start(
                options.model_control_mode, options.load_model, options.model_repository, self._states
            )
        except OSError as error:
            log.error("the model repository cannot be read: %s", error)
            self._fail_start()
            return
        whole = control_mode.load_all(self._models, names, self._lanes)
        self._states.started()
        if not whole and options.exit_on_error:
            self._fail_start()

    def _watched(self) -> control_mode.Repeated | None:
        """Who looks at the repositories from now on: what is there now is known."""
        options = self._options
        watch: control_mode.Repeated
        if options.model_control_mode == "poll":
            watch = control_mode.Poller(
                self._models,
                self._lanes,
                self._states,
                repositories=options.model_repository,
                seconds=options.repository_poll_secs,
            )
        elif options.model_control_mode == "explicit":
            watch = control_mode.IndexWatch(self._states, options.model_repository)
        else:
            return None
        watch.start()
        return watch

    def _fail_start(self) -> None:
        self._status = 1
        self._shut_down()

    def _dispatch(self) -> None:
        """Hands the core's commands to the loaders."""
        while True:
            try:
                command = self._core.next_command(1000)
            except CoreError:
                return
            if command is not None:
                document = json.loads(command)
                if document["kind"] == "worker_lost":
                    fields = {key: document[key] for key in ("model", "version", "started", "reason")}
                    level = logging.WARNING if document["started"] else logging.INFO  # a wanted end cuts nothing off
                    log.log(level, "a worker's channel ended", extra={"fields": fields})
                else:
                    self._lanes.submit(document.get("model", ""), partial(self._perform, document))

    def _perform(self, command: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"ok": True, "body": None}
        try:
            if command["kind"] == "load":
                self._models.load(command["model"], config=command["config"], files=command["files"])
            elif command["kind"] == "unload":
                self._models.unload(command["model"])
            else:
                text = "inspection by HTTP comes with a later version of Naiad; 'naiad inspect' reads files today"
                raise Refused("unsupported", text)
        except Refused as error:
            answer = {"ok": False, "code": error.code, "message": str(error)}
        except Exception as error:  # a bug of ours must not leave a client waiting
            log.exception("a command failed unexpectedly", extra={"fields": {"kind": command["kind"]}})
            answer = {"ok": False, "code": "internal", "message": f"unexpected {type(error).__name__}; see the log"}
        self._core.complete(command["id"], json.dumps(answer).encode())

    # -- keys -------------------------------------------------------------------------------------------------------

    def _push_keys(self, path: Path, *, generation: int) -> None:
        snapshot = keys_file.read(path, generation=generation)
        try:
            self._core.set_access(json.dumps(snapshot).encode())
        except CoreError as error:
            raise ConfigError(f"keys file '{path}': {error.args[1]}") from error

    def _watch_keys(self) -> None:
        path = self._options.keys_file
        if path is None:
            return
        generation, seen = 1, self._keys_stamp
        while not self._stopped.wait(_KEYS_POLL_SECS):
            now = keys_file.stamp(path)
            if now == seen:
                continue
            seen, generation = now, generation + 1
            try:
                self._push_keys(path, generation=generation)
                log.info("the keys file was read again")
            except ConfigError as error:
                log.error("the keys file is not taken over: %s", error)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """Not ready at once; running requests finish; then everything ends. A second call does nothing."""
        if not self._ending.acquire(blocking=False):
            return
        try:
            self._states.close()
            log.info("shutting down")
            if self._watch is not None:
                self._watch.stop()
            self._stopped.wait(self._options.drain_delay)
            self._stopped.set()
            if not self._core.drain(int(self._options.exit_timeout_secs * 1000)):
                log.warning("some requests were cut off at the end")
            self._supervisor.stop_all(self._supervisor.current(self._models.workers()))
            self._models.clean()
            self._core.stop()
        finally:
            self._main.finish(self._status)


def _raise_descriptor_limit() -> tuple[int, int]:
    """Raises the soft limit to the hard one; what it was, for the children."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


def serve(options: ServeOptions) -> int:
    """Runs a server; the exit status. Start errors go to stderr."""
    try:
        server = InferenceServer(options)
        status = server.run()
    except StartError as error:
        print(f"naiad serve: {error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    # Loader threads may still wait for a worker that is gone: nothing is left to save, so leave.
    os._exit(status)
