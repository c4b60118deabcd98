"""Completes a partial configuration: what was written, then what the file says, then the dry run, then defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from naiad.backends.base import Backend
from naiad.config import guessed, patch
from naiad.config.conflicts import Conflict, Sources, Told, find, place_of
from naiad.config.freeze import freeze
from naiad.config.message import ModelConfigMessage, number_of, v2_name
from naiad.config.model import Completed
from naiad.config.pbtxt import PartialConfig
from naiad.config.probe import ProbeRequest, has_dims, is_literal
from naiad.errors import ConfigError


@dataclass(slots=True)
class Draft:
    """A configuration in the making."""

    message: Any
    source: str
    origins: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    conflicts: tuple[Conflict, ...] = ()


def begin(partial: PartialConfig, backend: Backend) -> Draft:
    """A draft that holds what was written, the backend and its file."""
    message = ModelConfigMessage()
    message.CopyFrom(partial.message)
    draft = Draft(message, partial.source)
    for written in partial.given:
        draft.origins[written] = partial.source
    if not message.backend:
        message.backend = backend.name
        draft.origins["backend"] = partial.source if message.platform else "file"
    if backend.default_filename and not message.default_model_filename:
        message.default_model_filename = backend.default_filename
        draft.origins["default_model_filename"] = "default"
    return draft


def complete(
    partial: PartialConfig,
    backend: Backend,
    *,
    name: str,
    report: Mapping[str, Any] | None,
    probed: ProbeRequest | None,
) -> Completed:
    """The finished configuration; raises `ConfigError`. `report` is what PROBED said."""
    draft = filled(partial, backend, report=report, probed=probed)
    config = freeze(draft.message, name=name, source=partial.source)
    return Completed(config, draft.origins, tuple(draft.notes), draft.conflicts)


def filled(
    partial: PartialConfig, backend: Backend, *, report: Mapping[str, Any] | None, probed: ProbeRequest | None
) -> Draft:
    """A draft that has its inputs and outputs; raises `ConfigError`."""
    draft = begin(partial, backend)
    message = draft.message
    if report is not None and probed is not None:
        draft.notes += [report["note"]] if "note" in report else []
        probed = replace(probed, inputs=guessed.sized(probed.inputs, report))
        within_range(draft, probed.max_batch)
        _batch_size(draft, partial, largest_batch(backend, probed.max_batch), report)
        merge_requests(draft, partial, backend)
        fill_inputs(draft, report["varying"], probed)
        draft.notes += guessed.note(message, probed.inputs)
        _outputs(draft, report, probed)
        draft.conflicts = conflicts_of(partial, probed, report, batching=message.max_batch_size > 0)
    for kind, tensors in (("input", message.input), ("output", message.output)):
        if not tensors:
            also = f", or let auto_complete_config of the model call add_{kind}" if backend.describes else ""
            raise ConfigError(
                f"{partial.source or 'config.pbtxt'}: no {kind}, and backend '{backend.name}' cannot find it out "
                f"(CONFIG_INVALID); write name, data_type and dims into config.pbtxt{also}"
            )
    return draft


def conflicts_of(
    partial: PartialConfig, probed: ProbeRequest, report: Mapping[str, Any] | None, *, batching: bool
) -> tuple[Conflict, ...]:
    """Where what was written, the file and the dry run (None = there was none yet) contradict each other.

    Where the model did not run, the report holds what the file says, and a note.
    """
    report = None if report is not None and "note" in report else report
    outputs = probed.signature.outputs if probed.signature is not None else ()
    datatypes = {tensor.name: tensor.datatype for tensor in outputs if tensor.datatype}
    told = Told(dims=probed.outputs, datatypes=datatypes)
    return find(
        Sources(
            written=partial.message,
            source=partial.source,
            inputs=probed.inputs,
            told=told,
            report=report,
            batching=batching,
        )
    )


def largest_batch(backend: Backend, allowed: int | None) -> int:
    """What Naiad chooses as `max_batch_size`, no more than the file allows."""
    return backend.max_batch_size if allowed is None else min(backend.max_batch_size, allowed)


def within_range(draft: Draft, allowed: int | None) -> None:
    """Raises `ConfigError` for a written batch size that is larger than the file allows."""
    written = draft.message.max_batch_size
    if allowed is not None and written > allowed:
        raise ConfigError(
            f"{draft.source}: max_batch_size: expected at most {allowed} as in the file, got {written} (IO_MISMATCH)"
        )


def _batch_size(draft: Draft, partial: PartialConfig, largest: int, report: Mapping[str, Any]) -> None:
    message = draft.message
    batchable, reason = report["batchable"], report["reason"]
    if is_literal(partial) or message.max_batch_size > 0:
        if message.max_batch_size > 0 and report.get("mixed"):
            draft.notes.append(f"max_batch_size is as written, though rows of a batch do not keep apart: {reason}")
        elif message.max_batch_size > 0 and batchable is False:
            raise ConfigError(
                f"{draft.source}: max_batch_size: expected 0, for the model does not batch ({reason}), "
                f"got {message.max_batch_size} (BATCH_FROZEN); write max_batch_size: 0 into config.pbtxt, "
                "or save the model with a first dimension that may vary"
            )
        return
    if "max_batch_size" in partial.given:
        return
    draft.origins["max_batch_size"] = "dry run"
    if not batchable:
        draft.notes.append(f"no batching: {reason}")
        return
    if not largest:
        draft.notes.append("no batching: --backend-config says default-max-batch-size=0")
        return
    message.max_batch_size = largest
    # Where Naiad chose the batch size, requests are merged without waiting.
    if message.WhichOneof("scheduling_choice") is None:
        message.dynamic_batching.SetInParent()
        draft.origins["dynamic_batching"] = "default"


def merge_requests(draft: Draft, partial: PartialConfig, backend: Backend) -> None:
    """Dynamic batching where a batch size is written without a scheduler, for backends where Triton does so."""
    message = draft.message
    whole = partial.message.input and partial.message.output  # Triton then completes nothing
    if backend.merges and message.max_batch_size > 1 and not whole and message.WhichOneof("scheduling_choice") is None:
        message.dynamic_batching.SetInParent()
        draft.origins["dynamic_batching"] = "default"


def put_dims(tensor: Any, dims: Sequence[int], *, batching: bool, declared: bool) -> None:
    """Writes dims; where there are none, one element that the model sees without a dim, as Triton does."""
    if dims or (batching and not declared):
        tensor.dims.extend(dims)
    else:
        tensor.dims.append(1)
        tensor.reshape.SetInParent()


def fill_inputs(draft: Draft, varying: Mapping[str, Any], probed: ProbeRequest) -> None:
    """The inputs that were not written, or what is missing in them; `varying` is what PROBED said."""
    message = draft.message
    written = list(message.input)
    for tensor, entry in zip(written, probed.inputs, strict=False):
        if not v2_name(tensor.data_type):
            tensor.data_type = number_of(entry["datatype"])
            draft.origins[f"input.{tensor.name}.data_type"] = "file"
        if not entry["dims"] and list(tensor.dims) == [1]:
            tensor.reshape.SetInParent()
        elif not has_dims(tensor):
            _fill_dims(draft, tensor, varying, entry)
            draft.origins.setdefault(f"input.{tensor.name}.dims", "file")
    for entry in probed.inputs[len(written) :]:
        tensor = message.input.add()
        tensor.name = entry["name"]
        tensor.data_type = number_of(entry["datatype"])
        draft.origins[f"input.{tensor.name}"] = guessed.GUESS if "guesses" in entry else "file"
        _fill_dims(draft, tensor, varying, entry)


def _fill_dims(draft: Draft, tensor: Any, varying: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    batching = draft.message.max_batch_size > 0
    vary = varying.get(entry["name"], [])
    dims = [-1 if at < len(vary) and vary[at] else dim for at, dim in enumerate(entry["dims"])]
    declared = "declared" in entry
    put_dims(tensor, dims[1:] if batching else dims, batching=batching, declared=declared)
    if any(vary) and not declared and "guesses" not in entry:
        draft.origins[f"input.{tensor.name}.dims"] = "dry run"


def _seen(report: Mapping[str, Any], declared: Mapping[str, tuple[int, ...]]) -> list[dict[str, Any]]:
    """The outputs of the dry run; a dim that the file leaves open stays open, whatever two runs gave.

    A file may declare a rank that the model does not keep: what was seen counts then.
    """
    seen: list[dict[str, Any]] = []
    for output in report["outputs"]:
        told = declared.get(output["name"], ())
        same = len(told) == len(output["dims"])
        dims = [-1 if same and told[at] == -1 else dim for at, dim in enumerate(output["dims"])]
        seen.append({**output, "dims": dims})
    return seen


def _outputs(draft: Draft, report: Mapping[str, Any], probed: ProbeRequest) -> None:
    message = draft.message
    seen = _seen(report, probed.outputs)
    batching = message.max_batch_size > 0
    if not message.output:
        for entry in seen:
            tensor = message.output.add()
            tensor.name = entry["name"]
            tensor.data_type = number_of(entry["datatype"])
            _put_output(tensor, entry, probed, batching=batching)
            draft.origins[f"output.{tensor.name}"] = "dry run"
        return
    names = [entry["name"] for entry in seen]
    taken: dict[int, str] = {}
    for position, tensor in enumerate(message.output):
        place = place_of(tensor.name, position, names)
        if place >= len(seen):
            given = ", ".join(names)
            raise ConfigError(f"{draft.source}: output '{tensor.name}': the model gives {len(seen)} ({given})")
        entry = seen[place]
        if taken.setdefault(place, tensor.name) != tensor.name:
            raise ConfigError(
                f"{draft.source}: output '{tensor.name}': it is the model's '{entry['name']}', and so is "
                f"'{taken[place]}' (IO_MISMATCH); call the outputs as the model does: {', '.join(names)}"
            )
        if not v2_name(tensor.data_type):
            tensor.data_type = number_of(entry["datatype"])
            draft.origins[f"output.{tensor.name}.data_type"] = "dry run"
        if v2_name(tensor.data_type) != entry["datatype"]:
            raise ConfigError(
                f"{draft.source}: output '{tensor.name}': data_type: expected TYPE_{entry['datatype']} as the model "
                f"gives it, got TYPE_{v2_name(tensor.data_type)} (DTYPE_MISMATCH); "
                + patch.write(
                    patch.line("output", tensor.name, entry["datatype"], entry["dims"][1 if batching else 0 :])
                )
            )
        if not tensor.dims:
            _put_output(tensor, entry, probed, batching=batching)
            draft.origins[f"output.{tensor.name}.dims"] = "dry run"


def _put_output(tensor: Any, entry: Mapping[str, Any], probed: ProbeRequest, *, batching: bool) -> None:
    dims = entry["dims"][1:] if batching else entry["dims"]
    put_dims(tensor, dims, batching=batching, declared=entry["name"] in probed.outputs)
