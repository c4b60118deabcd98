"""`naiad rm NAME`: deletes services."""

from __future__ import annotations

from typing import Annotated

import typer

from naiad.cli.context import connect
from naiad.cli.output import Form, Output, State, guarded, result


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("rm")(rm)


def rm(
    names: Annotated[list[str], typer.Argument(help="the services")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="return when they are gone")] = True,
    timeout: Annotated[float, typer.Option(help="seconds to wait")] = 60.0,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Delete services; keys that were for them alone go with them."""

    def work() -> None:
        with connect(state) as client:
            for name in names:
                client.delete_service(name)
            if wait:
                for name in names:
                    client.wait_gone(name, timeout_seconds=timeout)
        result({"deleted": list(names)}, output, lambda: [f"deleted   {name}" for name in names])

    guarded(work)
