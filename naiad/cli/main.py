"""The `naiad` command: collects the commands; each one imports what it needs when it runs."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Annotated

import typer

from naiad import __version__, settings
from naiad.cli import deploy, down, env, infer, key, logs, ls, rm, status, up, version
from naiad.cli.output import fail
from naiad.errors import ConfigError

app = typer.Typer(
    name="naiad",
    help="Turns a model file into a secured inference service.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ROOMS = (up, down, deploy, ls, status, logs, infer, rm, env, key, version)
_OPTIONAL = ("naiad.cli.serve", "naiad.cli.inspect")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"naiad {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Turns a model file into a secured inference service."""
    try:
        settings.read()
    except ConfigError as error:
        fail(str(error))


for _room in _ROOMS:
    _room.register(app)
for _name in _OPTIONAL:
    if importlib.util.find_spec(_name) is not None:
        importlib.import_module(_name).register(app)


def main() -> None:
    """The console script."""
    app()
