"""`naiad env`: environments that models run in, of a platform or, with `--environments`, of a folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from naiad.cli.environments import Asked, open_place
from naiad.cli.output import Exit, Form, Output, State, fail, guarded, progress, result, table

Name = Annotated[str, typer.Argument(help="the environment")]
Folder = Annotated[
    Path | None,
    typer.Option("--environments", help="the folder that 'naiad serve --environments' reads", show_default=False),
]
Requirements = Annotated[Path | None, typer.Option("--requirements", "-r", help="a requirements.txt")]
CondaFile = Annotated[Path | None, typer.Option("--file", "-f", help="an environment.yaml")]
Python = Annotated[str | None, typer.Option(help="3.12 or 3.12.3; with --environments also an interpreter's path")]
IndexUrl = Annotated[str | None, typer.Option(help="package index instead of PyPI")]
ExtraIndexUrl = Annotated[list[str] | None, typer.Option(help="package index beside it; repeatable")]
FindLinks = Annotated[list[str] | None, typer.Option(help="folder or page with packages; repeatable")]
Channel = Annotated[list[str] | None, typer.Option(help="conda channel (default: conda-forge); repeatable")]
AllowSdist = Annotated[bool, typer.Option("--allow-sdist", help="build from source, which runs the packages' code")]
Offline = Annotated[bool, typer.Option("--offline", help="open no connection: caches and folders only")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="show the build and return when it is done")]
HEADS = ("NAME", "STATE", "PYTHON", "MANAGER", "PACKAGES", "BUILT", "USED BY")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(no_args_is_help=True, help="Build the Python environments that models run in.")
    for command in (create, ls, show, logs, lock, rebuild, rm):
        group.command(command.__name__)(command)
    app.add_typer(group, name="env")


def create(
    name: Annotated[str, typer.Argument(help="its name: lower-case letters, digits and '-'")],
    requirements: Requirements = None,
    file: CondaFile = None,
    python: Python = None,
    index_url: IndexUrl = None,
    extra_index_url: ExtraIndexUrl = None,
    find_links: FindLinks = None,
    channel: Channel = None,
    allow_sdist: AllowSdist = False,
    offline: Offline = False,
    wait: Wait = True,
    environments: Folder = None,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Make an environment from a requirements.txt or an environment.yaml, and build it."""

    def work() -> None:
        manager, text = _text(requirements, file)
        asked = Asked(
            manager=manager,
            text=text,
            python=str(Path(python).expanduser().absolute()) if python and "/" in python else python,
            index_url=index_url,
            extra_index_urls=tuple(extra_index_url or ()),
            find_links=tuple(_place(place) for place in find_links or ()),
            channels=tuple(channel or ()),
            allow_sdist=allow_sdist,
            offline=offline,
        )
        with open_place(environments, state) as place:
            _built(place.create(name, asked, wait=wait), output, wait=wait)

    guarded(work)


def ls(environments: Folder = None, state: State = None, output: Output = Form.TABLE) -> None:
    """List the environments."""

    def work() -> None:
        with open_place(environments, state) as place:
            documents = place.all()
        result({"items": documents}, output, lambda: table(HEADS, [_row(document) for document in documents]))
        if not documents:
            progress("no environments yet; next: naiad env create NAME -r requirements.txt")

    guarded(work)


def show(
    name: Name,
    environments: Folder = None,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Show one environment: state, packages, and why a build failed."""

    def work() -> None:
        with open_place(environments, state) as place:
            document = place.get(name)
        result(document, output, lambda: _lines(document))

    guarded(work)


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", help="go on until the build ends")] = False,
    environments: Folder = None,
    state: State = None,
) -> None:
    """Print the log of the last build."""

    def work() -> None:
        with open_place(environments, state) as place:
            for line in place.log(name, follow=follow):
                print(line, flush=True)

    guarded(work)


def lock(name: Name, environments: Folder = None, state: State = None) -> None:
    """Print the lock file of the build in use: every package with its hashes."""

    def work() -> None:
        with open_place(environments, state) as place:
            print(place.lock(name), end="", flush=True)

    guarded(work)


def rebuild(
    name: Name,
    requirements: Requirements = None,
    file: CondaFile = None,
    offline: Offline = False,
    wait: Wait = True,
    environments: Folder = None,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Build an environment anew, perhaps from a changed file; if that fails the last good build stays in use."""

    def work() -> None:
        given = _text(requirements, file) if requirements or file else None
        with open_place(environments, state) as place:
            _built(place.rebuild(name, given, offline=offline, wait=wait), output, wait=wait)

    guarded(work)


def rm(
    names: Annotated[list[str], typer.Argument(help="the environments")],
    environments: Folder = None,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Remove environments; refused while something uses one."""

    def work() -> None:
        with open_place(environments, state) as place:
            for name in names:
                place.remove(name)
        result({"removed": list(names)}, output, lambda: [f"removed   {name}" for name in names])

    guarded(work)


def _text(requirements: Path | None, file: Path | None) -> tuple[str, str]:
    if (requirements is None) == (file is None):
        fail("expected -r requirements.txt or -f environment.yaml", Exit.USAGE)
    path = requirements or file or Path()
    try:
        return ("CONDA" if file else "PIP"), path.read_text("utf-8-sig")
    except FileNotFoundError:
        fail(f"'{path}' does not exist", Exit.NOT_FOUND)
    except UnicodeDecodeError as error:
        fail(f"'{path}': expected UTF-8 text, got the byte {error.object[error.start]:#04x} at {error.start}")


def _place(text: str) -> str:
    return text if "://" in text else str(Path(text).expanduser().resolve())


def _built(document: dict[str, Any], output: Form, *, wait: bool) -> None:
    """Shows what became of a build; of a failed one the resolver's words have been shown as they came."""
    result(
        document, output, lambda: [f"{document['state'].lower():<9} {document['name']}  {_summary(document)}".rstrip()]
    )
    if wait and document["problem"]:
        kept = "; the last good build stays in use" if document["digest"] else ""
        fail(f"environment '{document['name']}' could not be built{kept}", Exit.NOT_READY)


def _summary(document: dict[str, Any]) -> str:
    if not document["digest"]:
        return ""
    return f"Python {document['python']}, {len(document['packages'])} packages, lock {document['digest'][:12]}"


def _row(document: dict[str, Any]) -> Sequence[str]:
    state = document["state"] + (" (last build failed)" if document["problem"] and document["digest"] else "")
    packages = str(len(document["packages"])) if document["packages"] else "-"
    users = ",".join(document["used_by"]) or "-"
    built = str(document["built_at"] or "-")[:19].replace("T", " ")
    return [document["name"], state, document["python"] or "-", document["manager"], packages, built, users]


def _lines(document: dict[str, Any]) -> list[str]:
    lines = [
        f"name      {document['name']}",
        f"state     {document['state']}",
        f"manager   {document['manager']}",
        f"python    {document['python'] or '-'}",
        f"lock      {document['digest'] or '-'}",
        f"built     {document['built_at'] or '-'}",
        f"used by   {', '.join(document['used_by']) or '-'}",
    ]
    if document["problem"]:
        lines += ["last build failed:", *(f"  {line}" for line in document["problem"].splitlines())]
    return [*lines, "packages", *(f"  {entry['name']} {entry['version']}" for entry in document["packages"])]
