"""`naiad up`: the platform in the foreground, or detached with `--detach`."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli.context import chosen_state, remember
from naiad.cli.output import Exit, Form, Output, State, fail, progress, result

if TYPE_CHECKING:
    from naiad.control.state import StateFolder

_API_PORT, _HTTP_PORT = 8080, 8000
_START_SECONDS = 120.0


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("up")(up)


def up(
    host: Annotated[
        str, typer.Option(help="address to listen on; others than loopback open it to other machines")
    ] = "",
    port: Annotated[int | None, typer.Option(help="port of the API; 0 picks one", min=0, max=65535)] = None,
    http_port: Annotated[int | None, typer.Option(help="port of the services; 0 picks one", min=0, max=65535)] = None,
    grpc_port: Annotated[int | None, typer.Option(help="their port for gRPC; 0 picks one", min=0, max=65535)] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="further name under which this machine is called")
    ] = None,
    advertise: Annotated[str | None, typer.Option(help="name or address in the URLs that are given out")] = None,
    root: Annotated[list[Path] | None, typer.Option(help="folder that models may be read from (default: here)")] = None,
    fetch_allow: Annotated[
        list[str] | None,
        typer.Option(help="host or network, not a public one, that environments may be fetched from; repeatable"),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="return when ready")] = False,
    state: State = None,
    output: Output = Form.TABLE,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the platform: its API and the server that runs the services."""
    from naiad.control.state import StateUnusable

    folder = chosen_state(state)
    try:
        folder.make()
    except StateUnusable as error:
        fail(str(error))
    remembered = folder.addresses()
    arguments = {
        "host": host or str(remembered.get("host") or "127.0.0.1"),
        "port": port if port is not None else int(remembered.get("port") or _API_PORT),
        "http_port": http_port if http_port is not None else int(remembered.get("http_port") or _HTTP_PORT),
        "grpc_port": grpc_port if grpc_port is not None else int(remembered.get("grpc_port") or 0),
        "allowed_host": allowed_host or [],
        "advertise": advertise,
        "root": [str(path) for path in _roots(root)],
        "fetch_allow": _reachable(fetch_allow or []),
    }
    if detach:
        _detached(folder, arguments, output)
    else:
        _foreground(folder, arguments, output, ready_fd)


def _roots(named: list[Path] | None) -> list[Path]:
    roots = [path.expanduser().resolve() for path in named or [Path.cwd()]]
    for path in roots:
        if not path.is_dir():
            fail(f"--root '{path}' is not a folder", Exit.USAGE)
    return roots


def _reachable(named: list[str]) -> list[str]:
    from naiad.environments.reach import Reach
    from naiad.errors import ConfigError

    try:
        Reach(named)
    except ConfigError as error:
        fail(f"--fetch-allow: {error}", Exit.USAGE)
    return named


def _foreground(folder: StateFolder, arguments: dict[str, Any], output: Form, ready_fd: int | None) -> None:
    from naiad.control.platform import Platform, PlatformOptions
    from naiad.errors import NaiadError
    from naiad.runtimes.local import LocalOptions, LocalRuntime

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpcore", "alembic", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    hosts = tuple(arguments["allowed_host"])
    runtime = LocalRuntime(
        LocalOptions(
            models=folder.models,
            logs=folder.logs,
            environments=folder.environments,
            host=arguments["host"],
            http_port=arguments["http_port"],
            grpc_port=arguments["grpc_port"],
            metrics_port=_port(folder.addresses(), "metrics") or 0,
            allowed_hosts=hosts + ((arguments["advertise"],) if arguments["advertise"] else ()),
        )
    )
    platform = Platform(
        PlatformOptions(
            state=folder,
            host=arguments["host"],
            port=arguments["port"],
            allowed_hosts=hosts,
            roots=tuple(Path(path) for path in arguments["root"]),
            fetch_allow=tuple(arguments["fetch_allow"]),
            advertise=arguments["advertise"],
        ),
        runtime,
    )

    def ready() -> None:
        addresses = platform.addresses()
        document = addresses | {
            "pid": os.getpid(),
            "host": arguments["host"],
            "port": int(addresses["api"].rpartition(":")[2]),
            "http_port": _port(addresses, "http"),
            "grpc_port": _port(addresses, "grpc"),
        }
        folder.write_addresses(document)
        remember(folder)
        if ready_fd is None:
            _announce(folder, output)
        else:
            os.write(ready_fd, json.dumps(document).encode() + b"\n")
            os.close(ready_fd)

    try:
        platform.start()
        try:
            platform.serve(ready=ready)
        finally:
            platform.stop()
    except NaiadError as error:
        fail(str(error))


def _port(addresses: Mapping[str, Any], name: str) -> int | None:
    """The port of an address, if there is one."""
    return int(str(addresses[name]).rpartition(":")[2]) if addresses.get(name) else None


def _detached(folder: StateFolder, arguments: dict[str, Any], output: Form) -> None:
    from naiad.control.state import holder

    if holder(folder) is None:
        _spawn(folder, arguments)
    elif not _answers(folder):
        fail(
            f"'naiad up' is running on '{folder.root}' but does not answer; see {folder.logs / 'up.log'}",
            Exit.NOT_READY,
        )
    remember(folder)
    _announce(folder, output)


def _spawn(folder: StateFolder, arguments: dict[str, Any]) -> None:
    """Starts `naiad up` in a session of its own and returns when it says that it is ready."""
    from naiad.runtimes.local import read_line

    progress("starting the platform ...")
    ready_read, ready_write = os.pipe()
    command = [sys.executable, "-P", "-m", "naiad", "up", "--state", str(folder.root), "--ready-fd", str(ready_write)]
    for name in ("host", "port", "http_port", "grpc_port", "advertise"):
        if arguments[name] is not None:
            command += [f"--{name.replace('_', '-')}", str(arguments[name])]
    for name in ("allowed_host", "root", "fetch_allow"):
        for value in arguments[name]:
            command += [f"--{name.replace('_', '-')}", value]
    with (folder.logs / "up.log").open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[ready_write], start_new_session=True
        )
    os.close(ready_write)
    line = read_line(ready_read, _START_SECONDS)
    os.close(ready_read)
    if not line:
        process.terminate()
        text = (folder.logs / "up.log").read_bytes()[begin:].decode("utf-8", "replace")
        said = [row.removeprefix("error: ") for row in text.splitlines() if row.startswith("error: ")]
        fail(said[-1] if said else f"the platform did not start; see {folder.logs / 'up.log'}")


def _answers(folder: StateFolder) -> bool:
    from naiad.cli.context import connect

    try:
        with connect(str(folder.root)) as client:
            return client.health()
    except Exception:
        return False


def _announce(folder: StateFolder, output: Form) -> None:
    addresses = folder.addresses()
    document = {
        "api": addresses.get("api_url"),
        "http": addresses.get("http_url"),
        "grpc": addresses.get("grpc_url"),
        "state": str(folder.root),
        "pid": addresses.get("pid"),
        "key_file": str(folder.admin_key),
    }
    result(
        document,
        output,
        lambda: [
            f"platform  {document['api']}/api/v1",
            f"services  {document['http']}/v2",
            *([f"gRPC      {document['grpc']}"] if document["grpc"] else []),
            f"state     {document['state']}   (key of this command line: {document['key_file']})",
        ],
    )
    progress("next: naiad deploy model.pt")
