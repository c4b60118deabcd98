"""`naiad down`: ends the platform on a state folder, and everything that it started."""

from __future__ import annotations

import os
import select
import signal
from typing import Annotated

import typer

from naiad.cli.context import chosen_state
from naiad.cli.output import Exit, Form, Output, State, fail, progress, result


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("down")(down)


def down(
    state: State = None,
    timeout: Annotated[float, typer.Option(help="seconds to wait for running requests to finish")] = 60.0,
    output: Output = Form.TABLE,
) -> None:
    """Stop the platform and its server; services come back with the next 'naiad up'."""
    from naiad.control.state import holder

    folder = chosen_state(state)
    pid = holder(folder)
    if pid is None:
        result(
            {"stopped": False, "state": str(folder.root)}, output, lambda: [f"nothing is running on '{folder.root}'"]
        )
        return
    progress(f"stopping process {pid} ...")
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        descriptor = None
    if descriptor is not None:
        with os.fdopen(descriptor):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            if not select.select([descriptor], [], [], timeout)[0]:
                fail(f"process {pid} is still running after {timeout:g} s", Exit.NOT_READY)
    result({"stopped": True, "state": str(folder.root)}, output, lambda: [f"stopped   {folder.root}"])
    progress("next: naiad up --detach")
