"""`naiad logs NAME`: what the server and the model wrote."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from naiad.cli.context import connect
from naiad.cli.output import Form, Output, State, guarded, progress


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("logs")(logs)


def logs(
    name: Annotated[str, typer.Argument(help="the service")],
    tail: Annotated[int, typer.Option(help="how many lines to begin with", min=0)] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with new lines")] = False,
    state: State = None,
    output: Output = Form.TABLE,
) -> None:
    """Print a service's log; with -o json one JSON object a line."""

    def work() -> None:
        count = 0
        with connect(state) as client:
            for line in client.logs(name, tail=tail, follow=follow):
                if line:
                    print(line if output is Form.JSON else readable(line), flush=True)
                    count += 1
        if not count:
            progress(f"service '{name}' has written nothing yet")

    try:
        guarded(work)
    except KeyboardInterrupt:
        raise typer.Exit() from None


def readable(line: str) -> str:
    """A log record as one line for a person; a line that is no record stays as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict):
        return line
    known = {key: record.pop(key, "") for key in ("time", "level", "message")}
    rest = " ".join(f"{key}={value}" for key, value in record.items() if value not in (None, ""))
    return f"{known['time']} {str(known['level']).upper():<7} {known['message']}" + (f"  {rest}" if rest else "")
