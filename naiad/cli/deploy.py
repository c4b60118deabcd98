"""`naiad deploy PATH`: makes a service from a model file and waits until it answers."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli.context import connect
from naiad.cli.output import Exit, Form, Output, State, fail, guarded, progress, result

if TYPE_CHECKING:
    from naiad.control.services.schema import CreatedService, Service, ServiceFields
    from naiad.sdk.client import Client

_TENSOR = re.compile(r"(?P<name>[^:]+(?:::[^:]+)*):(?P<dtype>[A-Za-z0-9_.]+):(?P<dims>-?[0-9]+(?:,-?[0-9]+)*)")
_MOST_FILES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What `naiad deploy` was asked to make."""

    path: Path
    name: str
    public: bool
    trust: bool
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    environment: str | None

    def fields(self, model: dict[str, Any]) -> ServiceFields:
        """The service's fields with the model where it now is."""
        from pydantic import ValidationError

        from naiad.control.services.schema import ServiceFields

        document = {
            "name": self.name,
            "model": model | {"trust": self.trust},
            "inputs": self.inputs,
            "outputs": self.outputs,
            "environment": self.environment,
            "auth": {"mode": "public" if self.public else "key"},
        }
        try:
            return ServiceFields.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            fail(f"{where}: {first['msg'].removeprefix('Value error, ')}", Exit.USAGE)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("deploy")(deploy)


def deploy(
    path: Annotated[Path, typer.Argument(help="a model file, version directory, model directory or repository")],
    name: Annotated[str | None, typer.Option(help="the service's name (default: after the model)")] = None,
    public: Annotated[bool, typer.Option("--public", help="anyone who reaches it may call it, without a key")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="the model's files may hold code that runs (model.py, pickles)")
    ] = False,
    inputs: Annotated[list[str] | None, typer.Option("--input", help="NAME:DTYPE:DIMS, as x:FP32:-1,1,32,32")] = None,
    outputs: Annotated[list[str] | None, typer.Option("--output", help="NAME:DTYPE:DIMS")] = None,
    argument: Annotated[list[str] | None, typer.Option(help="INPUT=ARGUMENT of forward(), where several")] = None,
    environment: Annotated[str | None, typer.Option(help="environment to run in; see 'naiad env'")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="write the key there (0600), as a header for curl -H @FILE")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="return when it is ready")] = True,
    timeout: Annotated[float, typer.Option(help="seconds to wait")] = 300.0,
    state: State = None,
    form: Output = Form.TABLE,
) -> None:
    """Make a service from a model file."""
    request = Request(
        path=path,
        name=name or _suggested(path),
        public=public,
        trust=trust,
        inputs=_tensors(inputs or [], argument or []),
        outputs=_tensors(outputs or [], []),
        environment=environment,
    )

    def work() -> None:
        if not path.exists():
            fail(f"'{path}' does not exist", Exit.NOT_FOUND)
        with connect(state) as client:
            created = _create(client, request)
            key = _key(client, created, key_file)
            service = _ready(client, request.name, timeout) if wait else created
        _show(service, key, key_file, form)

    guarded(work)


def _create(client: Client, request: Request) -> CreatedService:
    """By path where the platform may read it there, else by upload."""
    from naiad.sdk.errors import ApiError

    try:
        return client.create_service(request.fields({"path": str(request.path.resolve())}))
    except ApiError as error:
        if error.code not in ("PATH_OUTSIDE_ROOTS", "PATH_NOT_FOUND"):
            raise
    # The file of a SavedModel's graph stands for its folder, which holds the weights.
    path = request.path.parent if request.path.name == "saved_model.pb" else request.path
    files = _files(path)
    total = sum(source.stat().st_size for source, _ in files)
    progress(f"uploading {len(files)} file(s), {total / 1e6:.1f} MB ...")
    upload = client.upload(files, sent=_Meter(total).sent)
    inside = path.name if path.is_file() else "."
    return client.create_service(request.fields({"path": inside, "upload": upload}))


class _Meter:
    """Says every two seconds how much was sent."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._sent = 0
        self._next = time.monotonic() + 2

    def sent(self, count: int) -> None:
        """Counts bytes."""
        self._sent += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 2
            progress(f"  {self._sent / 1e6:.0f} of {self._total / 1e6:.0f} MB")


def _files(path: Path) -> list[tuple[Path, str]]:
    """What is uploaded, as the platform would take it where it lies: a link brings nothing from elsewhere (C5)."""
    if path.is_file():
        from naiad.signature.onnx import weights_beside

        beside = weights_beside(path) if path.suffix.lower() == ".onnx" else ()
        return [(path, path.name), *((path.resolve().parent / name, name) for name in beside)]
    files, root = [], path.resolve()
    for where, folders, names in os.walk(path):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for name in folders:
            if (Path(where) / name).is_symlink():
                fail(f"'{Path(where, name)}' is a link to a folder; put the folder itself there", Exit.USAGE)
        for name in sorted(names):
            source = Path(where) / name
            if not name.startswith(".") and source.is_file():
                if not source.resolve().is_relative_to(root):
                    fail(f"'{source}' is a link that leaves '{path}'; put the file itself there", Exit.USAGE)
                files.append((source, source.relative_to(path).as_posix()))
        if len(files) > _MOST_FILES:
            fail(f"'{path}' holds more than {_MOST_FILES} files; name the model's folder", Exit.USAGE)
    return files


def _ready(client: Client, name: str, timeout: float) -> Service:
    steps: list[str] = []

    def seen(service: Service) -> None:
        timeline = [step.step for step in service.status.timeline]
        for step in timeline[len(steps) :]:
            steps.append(step)
            progress(f"  {step.lower()}")

    return client.wait(name, timeout_seconds=timeout, seen=seen)


def _key(client: Client, created: CreatedService, key_file: Path | None) -> str | None:
    """The service's key, if one was made now; with `--key-file` one is made where the file holds none."""
    secret = created.key.key if created.key else None
    if key_file is None or created.auth.mode == "public":
        return secret
    if secret is None and not _holds_key(key_file):
        from naiad.control.keys.schema import KeyFields

        secret = client.create_key(KeyFields(services=[created.name])).key
    if secret is not None:
        from naiad.control.state import write_private

        write_private(key_file, f"X-API-Key: {secret}\n")
    return None


def _holds_key(path: Path) -> bool:
    return path.is_file() and path.read_text("utf-8").startswith("X-API-Key: nk_")


def _show(service: Service, key: str | None, key_file: Path | None, form: Form) -> None:
    access = service.status.access
    url = access.http if access else None
    document = service.model_dump(mode="json", exclude={"key"}) | {"key": key}

    def lines() -> list[str]:
        shown = [f"{service.status.state.lower():<9} {service.name} {service.status.version}"]
        shown += [f"url       {url}"] if url else []
        if service.auth.mode == "public":
            shown.append("access    public: no key is needed")
        elif key:
            shown.append(f"key       {key}   (shown this once)")
        elif key_file:
            shown.append(f"key       in {key_file}; use it with: curl -H @{key_file}")
        return shown

    result(document, form, lines)
    progress(f"next: naiad infer {service.name} --random")


def _suggested(path: Path) -> str:
    """A name after the file, or after the folder that says more than `model.pt`, `saved_model.pb` and `1` do."""
    from naiad.control.names import slug

    parts = [part for part in path.resolve().parts if part]
    words = [Path(parts[-1]).stem, *reversed(parts[:-1])]
    chosen = next((word for word in words if word not in ("model", "saved_model") and not word.isdigit()), "model")
    return slug(chosen)


def _tensors(texts: list[str], arguments: list[str]) -> list[dict[str, Any]]:
    named = {}
    for text in arguments:
        name, separator, argument = text.partition("=")
        if not separator:
            fail(f"--argument '{text}': expected INPUT=ARGUMENT", Exit.USAGE)
        named[name] = argument
    tensors = []
    for text in texts:
        match = _TENSOR.fullmatch(text)
        if match is None:
            fail(f"'{text}': expected NAME:DTYPE:DIMS, as in x:FP32:-1,1,32,32", Exit.USAGE)
        dims = [int(dim) for dim in match["dims"].split(",")]
        tensor: dict[str, Any] = {"name": match["name"], "dtype": match["dtype"], "dims": dims}
        if match["name"] in named:
            tensor["argument"] = named.pop(match["name"])
        tensors.append(tensor)
    if named:
        fail(f"--argument '{next(iter(named))}=…' names no --input", Exit.USAGE)
    return tensors
