"""`naiad key`: create, list and revoke keys; with `--keys-file` for a `naiad serve` that runs alone."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naiad.cli.context import connect
from naiad.cli.describe import KEY_HEADS, key_row
from naiad.cli.output import Exit, Form, Output, State, fail, guarded, progress, result, table

if TYPE_CHECKING:
    from naiad.control.keys.schema import KeyFields

KeysFile = Annotated[
    Path | None, typer.Option("--keys-file", help="the file that 'naiad serve --keys-file' reads", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
    group.command("create")(create)
    group.command("ls")(ls)
    group.command("revoke")(revoke)
    app.add_typer(group, name="key")


def create(
    name: Annotated[str | None, typer.Option(help="the key's name (default: after its service)")] = None,
    service: Annotated[list[str] | None, typer.Option(help="a service it may call, repeatable; '*' for all")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="infer, manage, metrics or admin; repeatable")] = None,
    expires: Annotated[str | None, typer.Option(help="a date, or a time from now such as 30d")] = None,
    keys_file: KeysFile = None,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Make a key; it is printed this once."""

    def work() -> None:
        fields = _fields(name, service, scope, expires)
        document = _create_in_file(keys_file, fields) if keys_file else _create(state, fields)
        result(document, output, lambda: [document["key"]])
        progress(f"key '{document['name']}' is shown this once; send it as 'Authorization: Bearer <key>'")

    guarded(work)


def ls(keys_file: KeysFile = None, state: State = None, output: Output = Form.TABLE) -> None:
    """List the keys; never a secret."""

    def work() -> None:
        if keys_file:
            rows = _read(keys_file)
            shown = [[f"nk_{row['id']}…", ",".join(row["scopes"]), ",".join(row["services"])] for row in rows]
            items = [{key: value for key, value in row.items() if key != "digest"} for row in rows]
            result({"items": items}, output, lambda: table(("PREFIX", "SCOPES", "SERVICES"), shown))
            return
        with connect(state) as client:
            keys = client.keys()
        document = {"items": [key.model_dump(mode="json") for key in keys]}
        result(document, output, lambda: table(KEY_HEADS, [key_row(key) for key in keys]))

    guarded(work)


def revoke(
    name: Annotated[str, typer.Argument(help="the key's name; with --keys-file its id or prefix")],
    keys_file: KeysFile = None,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Make a key worthless, at once."""

    def work() -> None:
        if keys_file:
            _revoke_in_file(keys_file, name)
        else:
            with connect(state) as client:
                client.revoke_key(name)
        result({"revoked": name}, output, lambda: [f"revoked   {name}"])

    guarded(work)


def _fields(name: str | None, service: list[str] | None, scope: list[str] | None, expires: str | None) -> KeyFields:
    from pydantic import ValidationError

    from naiad.control.keys.schema import KeyFields

    document: dict[str, Any] = {"services": service or [], "scopes": scope or ["infer"]}
    document |= {key: value for key, value in (("name", name), ("expires", expires)) if value is not None}
    try:
        return KeyFields.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        fail(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}, got {first['input']!r}", Exit.USAGE)


def _create(state: str | None, fields: KeyFields) -> dict[str, Any]:
    with connect(state) as client:
        return client.create_key(fields).model_dump(mode="json")


def _create_in_file(path: Path, fields: KeyFields) -> dict[str, Any]:
    from naiad import keys

    rows = _read(path) if path.exists() else []
    secret = keys.make_key()
    expires = int(fields.expires.replace(tzinfo=UTC).timestamp()) if fields.expires else None
    row = keys.row(secret, scopes=fields.scopes, services=fields.services or ["*"], expires=expires)
    _write(path, [*rows, row])
    return {
        "name": str(row["id"]),
        **{key: row[key] for key in ("scopes", "services", "expires")},
        "key": secret.reveal(),
    }


def _revoke_in_file(path: Path, name: str) -> None:
    rows = _read(path)
    identifier = name.removeprefix("nk_").rstrip("…")
    kept = [row for row in rows if row["id"] != identifier]
    if len(kept) == len(rows):
        fail(f"'{path}' holds no key with the id '{identifier}'", Exit.NOT_FOUND)
    _write(path, kept)


def _read(path: Path) -> list[dict[str, Any]]:
    document = json.loads(path.read_text("utf-8"))
    rows = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        fail(f"'{path}' is not a keys file: expected an object with 'keys'")
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from naiad.control.state import write_private

    write_private(path, json.dumps({"keys": rows}, indent=2) + "\n")
