"""`naiad status NAME`: one service, and why it does not serve if it does not."""

from __future__ import annotations

from typing import Annotated

import typer

from naiad.cli.context import connect
from naiad.cli.describe import service_lines
from naiad.cli.output import Exit, Form, Output, State, guarded, result


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("status")(status)


def status(
    name: Annotated[str, typer.Argument(help="the service")], state: State = None, output: Output = Form.TABLE
) -> None:
    """Show a service; the exit code is 3 while it is not ready."""

    def work() -> bool:
        with connect(state) as client:
            service = client.service(name)
        result(service.model_dump(mode="json"), output, lambda: service_lines(service))
        return service.status.state == "Ready"

    if not guarded(work):
        raise typer.Exit(int(Exit.NOT_READY))
