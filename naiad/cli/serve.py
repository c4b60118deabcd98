"""`naiad serve`: the inference server alone, with Triton's options."""

from __future__ import annotations

import sys

import typer

_SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    """Adds the command; its options are parsed from the server's own table."""

    @app.command(name="serve", context_settings=_SETTINGS, add_help_option=False)
    def serve(context: typer.Context) -> None:
        """Serve a model repository: a drop-in replacement for Triton."""
        raise typer.Exit(run(context.args))


def run(arguments: list[str]) -> int:
    """Parses and serves; the exit status."""
    from naiad.server.options import UsageError, parse, usage

    if any(word in ("-h", "--help") for word in arguments):
        print(usage())
        return 0
    try:
        options = parse(arguments)
    except UsageError as error:
        print(f"naiad serve: {error}", file=sys.stderr)
        return 1
    from naiad.server.server import serve

    return serve(options)
