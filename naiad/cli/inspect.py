"""`naiad inspect PATH`: what a model's file and configuration say, and where that comes from; --run runs it, too."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli.output import Exit, fail
from naiad.errors import ConfigError, LoadError, NaiadError, UnservableFile
from naiad.repository.paths import shown

if TYPE_CHECKING:
    from naiad.backends.base import Backend
    from naiad.config.conflicts import Conflict
    from naiad.config.pbtxt import PartialConfig
    from naiad.config.preview import Preview
    from naiad.server.dry_run import DryRunOptions
    from naiad.signature.model import Signature

CONFIGURATION = "config.pbtxt"
_NEVER_FOLDED = 1 << 16
"""Columns of a table that goes into a file or another program: what one looks for there stands in one line."""


class InspectForm(StrEnum):
    """The form of what is printed."""

    TABLE = "table"
    JSON = "json"
    PBTXT = "pbtxt"
    YAML = "yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model in the file system and what was read of it."""

    name: str
    folder: Path
    """Where the file lies: the version's folder."""
    file: Path | None
    backend: Backend
    partial: PartialConfig
    signature: Signature | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where `--run` runs a model."""

    environment: str = ""
    """A name that counts instead of what the configuration says."""
    folder: Path | None = None
    """Of environments; None is the one that `naiad serve` reads where it is not told."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("inspect")(command)


def command(
    path: Annotated[Path, typer.Argument(help="a model file, a model directory, or a repository with one model")],
    output: Annotated[
        InspectForm, typer.Option("--format", "-o", help="table, json, yaml or pbtxt", show_default=False)
    ] = InspectForm.TABLE,
    run: Annotated[bool, typer.Option("--run", help="also run the model, in a process without network")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, max=86_400, help="seconds that --run may take")] = 60.0,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=65_536, help="GiB that --run may use [8, or half of the machine's]", show_default=False
        ),
    ] = None,
    environment: Annotated[str | None, typer.Option(help="environment that --run runs in; see 'naiad env'")] = None,
    environments: Annotated[
        Path | None, typer.Option(help="folder of environments, as of 'naiad serve'", show_default=False)
    ] = None,
) -> None:
    """Show what a model file says about itself; without --run nothing is executed. No server is needed."""
    if not run and (environment or environments):
        fail("--environment and --environments say where --run runs the model; add --run", Exit.USAGE)
    where = Where(environment=environment or "", folder=environments) if run else None
    raise typer.Exit(inspect(path, output, run=_options(timeout, memory) if run else None, where=where))


def _options(timeout: float, memory: float | None) -> DryRunOptions:
    from naiad.server.dry_run import GIB, DryRunOptions, default_memory

    return DryRunOptions(timeout_secs=timeout, memory=default_memory() if memory is None else int(memory * GIB))


def inspect(path: Path, output: str, *, run: DryRunOptions | None = None, where: Where | None = None) -> int:
    """Prints what is known of the model at `path` as `table`, `json`, `yaml` or `pbtxt`; the exit status."""
    from naiad.config.preview import preview

    try:
        found = find(path)
        seen = preview(found.partial, found.backend, name=found.name, signature=found.signature)
        if run is not None:
            seen = _run(found, run, where or Where())
    except (NaiadError, OSError) as error:
        return _refuse(*_reason(error))
    if output == InspectForm.JSON:
        print(json.dumps(document(found, seen), indent=2, ensure_ascii=False))
    elif output == InspectForm.YAML:
        import yaml

        print(yaml.safe_dump(document(found, seen), sort_keys=False, allow_unicode=True, width=120), end="")
    elif output == InspectForm.PBTXT:
        print(pbtxt_text(found, seen), end="")
    else:
        _print_table(found, seen)
    return int(Exit.OK)


def _reason(error: NaiadError | OSError) -> tuple[str, str, Exit]:
    """Cause, fix and exit status of a refusal."""
    from naiad.control.diagnosis import Broken

    cause, fix, code = str(error), "", Exit.ERROR
    if isinstance(error, Broken):
        cause, fix = f"{error} ({error.code})", error.fix
        code = Exit.NOT_FOUND if error.code == "PATH_NOT_FOUND" else code
    elif isinstance(error, UnservableFile | ConfigError):
        cause, fix = f"{error.what} ({error.code})", error.fix
    elif isinstance(error, LoadError):
        during = "" if error.stage == "probe" else "dry run: "
        cause, fix = f"{during}{error.cause} ({error.code})", error.fix
    elif isinstance(error, FileNotFoundError) and error.filename is None:
        code = Exit.NOT_FOUND
    elif isinstance(error, OSError) and error.filename is not None:
        cause = f"'{error.filename}': {error.strerror}"
    return cause, fix, code


def _run(found: Found, options: DryRunOptions, where: Where) -> Preview:
    """What is known after a dry run; raises `ConfigError` or `LoadError`."""
    from naiad.config.preview import after_run
    from naiad.config.probe import probe_request
    from naiad.server.describe import by_worker, with_inputs
    from naiad.server.dry_run import answer, description, dry_run, fenced_interpreter
    from naiad.server.load_request import LoadRequest

    version = int(found.folder.name) if found.folder.name.isdecimal() else 1
    found = replace(found, partial=_in_environment(found.partial, where.environment))
    request = LoadRequest(model=found.name, version=version, directory=found.folder.parent, partial=found.partial)
    file = _below(found.file, found.folder) if found.file is not None else ""
    place, backend = (found.folder, file), found.backend
    interpreter = fenced_interpreter(request, backend, environments=_folder(where))
    options = replace(options, interpreter=interpreter)
    origins: dict[str, str] = {"parameters": "--environment"} if where.environment else {}
    conflicts: tuple[Conflict, ...] = ()
    if found.signature is not None and by_worker(found.partial, backend, found.signature):
        told = answer(request, backend, place, {}, options=options)
        found = replace(found, signature=with_inputs(found.signature, told))
    probed = probe_request(found.partial, found.signature) if backend.reads_signature else None
    if found.signature is not None and found.signature.describes and backend.describes:
        merged = description(request, backend, place, options=options)
        request = replace(request, partial=merged.partial)
        origins, conflicts = {**merged.origins, **origins}, merged.conflicts
    report, note = dry_run(request, backend, place, probed=probed, options=options)
    run = (probed, report) if probed is not None and report is not None else None
    seen = after_run(request.partial, backend, name=found.name, signature=found.signature, run=run)
    seen = replace(seen, origins={**seen.origins, **origins}, conflicts=(*conflicts, *seen.conflicts))
    return replace(seen, notes=(*seen.notes, note)) if note else seen


def _in_environment(partial: PartialConfig, name: str) -> PartialConfig:
    """The configuration with this environment instead of its own; "" leaves it as it is."""
    from naiad.server.interpreter import NAME, PATH

    if not name:
        return partial
    message = type(partial.message)()
    message.CopyFrom(partial.message)
    message.parameters.pop(PATH, None)
    message.parameters[NAME].string_value = name
    return replace(partial, message=message, given=partial.given | {"parameters"})


def _folder(where: Where) -> Path:
    from naiad.settings import read

    folder = where.folder or read().state_home / "naiad" / "environments"
    return folder.expanduser().absolute()


def _below(file: Path, folder: Path) -> str:
    """The model's file as seen from its version folder, which may be a link."""
    base = folder if file.is_relative_to(folder) else folder.resolve()
    return str(file.relative_to(base))


def find(path: Path) -> Found:
    """The model at `path`; raises `FileNotFoundError`, `Broken`, `ConfigError` or `UnservableFile`."""
    from naiad.control.diagnosis import Broken
    from naiad.control.engines.layout import find as find_layout
    from naiad.repository.index import look_at
    from naiad.signature.formats import of_folder

    if not path.exists():
        raise FileNotFoundError(f"'{path}' does not exist{_sibling(path)}")
    path = path.resolve() if ".." in path.parts else path.absolute()
    try:
        layout = find_layout(path)
    except Broken:
        if path.is_dir() and of_folder(path) is not None:
            return _lone(path)
        raise
    if layout.name:
        return _lone(layout.content)
    folder = layout.content
    model = look_at(folder.parent)
    if model.problem:
        raise ConfigError(model.problem)
    return _of_version(folder, path if path.is_file() and path.name != CONFIGURATION else None, layout.ignored)


def _lone(file: Path) -> Found:
    """A model outside a repository: all that is known is what it says."""
    from naiad.backends import registry
    from naiad.config import pbtxt
    from naiad.signature.recognise import read

    signature = read(file)
    backend = registry.alone(signature.backend, file)
    return Found(
        name=file.stem,
        folder=file.parent,
        file=file,
        backend=backend,
        partial=pbtxt.empty(),
        signature=signature,
        notes=(),
    )


def _of_version(folder: Path, named: Path | None, ignored: tuple[str, ...]) -> Found:
    from naiad.config import pbtxt, recognition
    from naiad.repository.files import model_file
    from naiad.signature.recognise import read

    name = folder.parent.name
    partial = pbtxt.read(folder.parent, config_name=None)
    signature = read(named, recognition.parameters_of(partial)) if named is not None else None
    backend = recognition.backend_of(partial, folder, name=name)
    default = partial.message.default_model_filename or backend.default_filename
    file = named or (model_file(folder, default) if default else None)
    if signature is None and file is not None:
        signature = recognition.signature_of(partial, backend, file)
    notes = [f"ignored: '{folder}' is no version (a number without leading zeros)" for folder in ignored]
    if named is not None and default and named.relative_to(folder).parts[0] != default:
        notes.append(f"'{named.name}' is not the file that is served: that is '{default}'")
    return Found(
        name=name,
        folder=folder,
        file=file,
        backend=backend,
        partial=partial,
        signature=signature,
        notes=tuple(notes),
    )


def _sibling(path: Path) -> str:
    """The name beside it that was probably meant: other case, trailing blanks, a slip."""
    try:
        names = sorted(entry.name for entry in path.absolute().parent.iterdir())
    except OSError:
        return ""
    same = [name for name in names if name.strip().casefold() == path.name.strip().casefold()]
    near = same or difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def document(found: Found, seen: Preview) -> dict[str, Any]:
    """The result as JSON or YAML."""
    from naiad.config.json_form import to_dict

    signature = found.signature
    return {
        "name": found.name,
        "file": str(found.file) if found.file else None,
        "format": signature.format if signature else None,
        "signature": _signature(signature) if signature else None,
        "config": to_dict(seen.effective),
        "origins": dict(sorted(seen.origins.items())),
        "open": list(seen.open),
        "conflicts": [conflict.document() for conflict in seen.conflicts],
        "notes": [*found.notes, *seen.notes],
    }


def _signature(signature: Signature) -> dict[str, Any]:
    """What the file says, the batch included in `shape` and `dims`."""
    inputs, outputs = (
        [
            {
                "name": tensor.name,
                "type": tensor.type,
                "datatype": tensor.datatype,
                "shape": None if tensor.shape is None else list(tensor.shape),
                "dims": None if tensor.dims is None else list(tensor.dims),
            }
            for tensor in tensors
        ]
        for tensors in (signature.inputs, signature.outputs)
    )
    return {
        "inputs": inputs,
        "outputs": outputs,
        "output_type": signature.output_type,
        "max_batch": signature.max_batch,
    }


def pbtxt_text(found: Found, seen: Preview) -> str:
    """The result as a config.pbtxt that one can keep; what is not known stands in comments."""
    from google.protobuf import text_format

    what = found.signature.format if found.signature else f"backend '{found.backend.name}'"
    lines = [f"# made by 'naiad inspect' from {found.file.name if found.file else found.name}: {what}"]
    lines += [f"# not known yet: {path}" for path in seen.open]
    lines += [f"# conflict: {conflict}" for conflict in seen.conflicts]
    lines += [f"# {note}" for note in (*found.notes, *seen.notes)]
    head = "".join(f"{shown(line)}\n" for line in lines)
    return head + str(text_format.MessageToString(seen.message))


def _rows(found: Found, seen: Preview) -> Iterator[tuple[str, str, str]]:
    """(field, value, origin) of everything that is known."""
    from naiad.config.message import v2_name

    yield "file", str(found.file) if found.file else "none is needed", ""
    if found.signature is not None:
        yield "format", found.signature.format, "file"
    effective = seen.effective
    if not effective.max_batch_size:
        yield "max_batch_size", "0", seen.origins["max_batch_size"]
    for field, value in effective.ListFields():
        if field.name in ("input", "output", "name"):
            continue
        yield field.name, _one_line(field, value), seen.origins.get(field.name, "")
    for kind in ("input", "output"):
        for tensor in getattr(effective, kind):
            path = f"{kind}.{tensor.name}"
            datatype = v2_name(tensor.data_type) or "?"
            dims = f"[{', '.join(map(str, tensor.dims))}]" if tensor.dims or path not in seen.open else "?"
            yield path, f"{datatype} {dims}", _origin(seen, kind, path)
        present = {f"{kind}.{tensor.name}" for tensor in getattr(effective, kind)}
        for path in seen.open:
            if path.split(".")[0] == kind and path not in present:
                yield path, "?", _told_later(found, kind)


def _told_later(found: Found, kind: str) -> str:
    """When something is known that is not known now."""
    if kind == "output":
        return "dry run at load" if found.backend.reads_signature else "not known"
    return "guess at load" if found.signature is not None and found.signature.guessable else "not known"


def _origin(seen: Preview, kind: str, path: str) -> str:
    """Where a tensor comes from; datatype and dims may have different sources."""
    whole = seen.origins.get(path) or seen.origins.get(kind, "")
    datatype, dims = (seen.origins.get(f"{path}.{part}", whole) for part in ("data_type", "dims"))
    return datatype if datatype == dims else f"{datatype}, dims: {dims}"


def _one_line(field: Any, value: Any) -> str:
    """A field's value on one line."""
    from google.protobuf import text_format

    if not field.is_repeated and field.message_type is None:
        return str(value)
    if not field.is_repeated:
        return str(text_format.MessageToString(value, as_one_line=True)) or "on"
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return ", ".join(f"{key}: {_one_line(inner, value[key])}" for key in sorted(value))
    return "; ".join(str(text_format.MessageToString(item, as_one_line=True)) for item in value)


def _print_table(found: Found, seen: Preview) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() else _NEVER_FOLDED
    console = Console(soft_wrap=False, highlight=False, width=width)
    table = Table(title=Text(f"model {shown(found.name)}"), box=SIMPLE_HEAD, title_justify="left")
    table.add_column("FIELD", no_wrap=True)
    table.add_column("VALUE", overflow="fold")
    table.add_column("ORIGIN", no_wrap=True)
    for row in _rows(found, seen):
        table.add_row(*(Text(shown(cell)) for cell in row))
    console.print(table)
    for conflict in seen.conflicts:
        print(f"conflict: {shown(str(conflict))}")
    for note in (*found.notes, *seen.notes):
        print(f"note: {shown(note)}")


def _refuse(cause: str, fix: str, code: Exit = Exit.ERROR) -> int:
    print(f"error: {shown(cause)}", file=sys.stderr)
    if fix:
        lines = fix.splitlines()
        print("\n".join([f"fix: {shown(lines[0])}", *(shown(line) for line in lines[1:])]), file=sys.stderr)
    return int(code)
