"""What a dry run that fails means: a refusal, or that what the file and the configuration say must do."""

from __future__ import annotations

from typing import Any

from naiad.config import declared, guessed, patch
from naiad.config.probe import ProbeRequest
from naiad.errors import LoadError
from naiad.server.load_request import LoadRequest

AS_WRITTEN = "a dry run with zeros fails (%s); the configuration tells everything, so it is taken as written"


def probe_failure(request: LoadRequest, probed: ProbeRequest, error: LoadError) -> LoadError:
    """What a model raised in its dry run, with the inputs that it was given."""
    shapes = ", ".join(f"{entry['name']} {entry['datatype']} {entry['dims']}" for entry in probed.inputs)
    fix = error.fix or guessed.refusal(probed.inputs) or patch.of_traced(probed.inputs, batched=probed.batched)
    written = "check the inputs in config.pbtxt: the model does not run on zeros of these datatypes and shapes"
    fix = fix or (written if request.partial.message.input else "write inputs that the model takes into config.pbtxt")
    cause = f"a dry run with zeros ({shapes}) fails: {error.cause}"
    failure = LoadError(model=request.model, version=request.version, stage="probe", cause=cause, fix=fix)
    return failure.coded("IO_MISMATCH" if error.code == "LOAD_FAILED" else error.code)


def instead_of_run(request: LoadRequest, probed: ProbeRequest, error: LoadError) -> dict[str, Any] | None:
    """What stands in for a dry run that failed: what the file declares; None where the configuration tells everything.

    Raises `LoadError` where neither does, or where the worker was lost.
    """
    if not probed.decides:
        return None
    told = declared.report(probed, error.cause) if error.stage == "probe" else None
    if told is None:
        raise probe_failure(request, probed, error) from error
    return told
