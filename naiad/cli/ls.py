"""`naiad ls`: all services."""

from __future__ import annotations

import typer

from naiad.cli.context import connect
from naiad.cli.describe import SERVICE_HEADS, service_row
from naiad.cli.output import Form, Output, State, guarded, progress, result, table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("ls")(ls)


def ls(state: State = None, output: Output = Form.TABLE) -> None:
    """List the services."""

    def work() -> None:
        with connect(state) as client:
            services = client.services()
        document = {"items": [service.model_dump(mode="json") for service in services]}
        result(document, output, lambda: table(SERVICE_HEADS, [service_row(service) for service in services]))
        if not services:
            progress("no services yet; next: naiad deploy model.pt")

    guarded(work)
