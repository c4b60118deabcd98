"""`naiad version`: the version of this installation."""

from __future__ import annotations

import platform

import typer

from naiad import __version__
from naiad.cli.output import Form, Output, result


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("version")(version)


def version(output: Output = Form.TABLE) -> None:
    """Print the version of Naiad and of the Python that runs it."""
    document = {"naiad": __version__, "python": platform.python_version()}
    result(document, output, lambda: [f"naiad {__version__} (Python {document['python']})"])
