"""`naiad infer NAME`: one inference, with random inputs, a JSON request or arrays from files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli.context import connect
from naiad.cli.output import Exit, Form, Output, State, fail, guarded, result

if TYPE_CHECKING:
    from naiad.sdk.client import Client

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("infer")(infer)


def infer(
    name: Annotated[str, typer.Argument(help="the service")],
    random: Annotated[bool, typer.Option("--random", help="make up inputs that fit")] = False,
    json_body: Annotated[str | None, typer.Option("--json", help="a v2 request: @FILE, @- or the JSON itself")] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="NAME=@FILE.npy, repeatable")] = None,
    batch: Annotated[int, typer.Option(help="batch size of random inputs", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="seed of random inputs")] = 0,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Call a service once and print its outputs."""
    if (random, json_body is not None, bool(inputs)).count(True) != 1:
        fail("say what to send: --random, --json @FILE or -i NAME=@FILE.npy", Exit.USAGE)

    def work() -> None:
        with connect(state) as client:
            service = client.service(name)
            access = service.status.access
            if access is None or service.status.state != "Ready":
                fail(f"service '{name}' is {service.status.state}; see: naiad status {name}", Exit.NOT_READY)
            body = _read(json_body) if json_body is not None else _body(client, access.http, inputs, batch, seed)
            answer = client.infer(access.infer, body)
        result(answer, output, lambda: _lines(answer))

    guarded(work)


def _read(text: str) -> bytes:
    if text == "@-":
        return sys.stdin.buffer.read()
    return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()


def _body(client: Client, url: str, files: list[str] | None, batch: int, seed: int) -> bytes:
    from naiad.sdk.tensors import random_inputs, request_body

    metadata = client.metadata(url)
    arrays = _arrays(files) if files else random_inputs(metadata, batch=batch, seed=seed)
    return request_body(metadata, arrays)


def _arrays(files: list[str]) -> dict[str, Any]:
    import numpy as np

    arrays = {}
    for text in files:
        name, separator, path = text.partition("=@")
        if not separator:
            fail(f"-i '{text}': expected NAME=@FILE.npy", Exit.USAGE)
        if not path.endswith(".npy"):
            fail(f"-i '{text}': only .npy files are read yet", Exit.USAGE)
        arrays[name] = np.load(path, allow_pickle=False)
    return arrays


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = []
    for tensor in answer.get("outputs", []):
        data = tensor["data"]
        shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in data[:_SHOWN])
        more = f", … ({len(data)} values)" if len(data) > _SHOWN else ""
        lines.append(f"{tensor['name']} {tensor['datatype']} {tensor['shape']}: [{shown}{more}]")
    return lines
