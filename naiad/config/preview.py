"""What can be said of a configuration before a load: written values, the file's, a dry run's, and what is left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from naiad.backends.base import Backend
from naiad.config import freeze, validate
from naiad.config.autocomplete import (
    Draft,
    begin,
    conflicts_of,
    fill_inputs,
    filled,
    largest_batch,
    merge_requests,
    put_dims,
    within_range,
)
from naiad.config.conflicts import Conflict
from naiad.config.guessed import GUESS
from naiad.config.message import ModelConfigMessage, number_of, v2_name
from naiad.config.pbtxt import PartialConfig
from naiad.config.probe import ProbeRequest, is_literal, probe_request
from naiad.signature.model import Signature, output_names

_UNTOLD = "the file does not tell the shapes of its inputs: "
_GUESSED = (
    "a load guesses them from the model's weights, and so does --run; write them into config.pbtxt to be sure of them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A configuration as far as it is known before the model is loaded."""

    message: Any
    """As one would write it: values that Naiad fills in at load are not in it."""
    effective: Any
    """The same, normalised."""
    origins: Mapping[str, str]
    """Field path → `config.pbtxt`, `file`, `dry run`, `default` or `guess`."""
    open: tuple[str, ...]
    """Field paths that only a dry run tells."""
    conflicts: tuple[Conflict, ...] = ()
    """Where the sources of values contradict each other, as far as they are known."""
    notes: tuple[str, ...]


def preview(partial: PartialConfig, backend: Backend, *, name: str, signature: Signature | None) -> Preview:
    """Raises `ConfigError` where what is written contradicts itself or the file."""
    draft = begin(partial, backend)
    message = draft.message
    undecided: list[str] = []
    if message.input or (signature is not None and signature.complete):
        probed = probe_request(partial, signature) if backend.reads_signature else None
        if probed is not None and not is_literal(partial):
            _guess_batch(draft, partial, largest_batch(backend, probed.max_batch), probed.inputs)
            if not all("declared" in entry for entry in probed.inputs):
                draft.notes.append("dims are those of the example that was traced; the dry run finds which may vary")
        if probed is not None:
            within_range(draft, probed.max_batch)
            merge_requests(draft, partial, backend)
            fill_inputs(draft, {}, probed)
            draft.conflicts = conflicts_of(partial, probed, None, batching=message.max_batch_size > 0)
    elif signature is not None and signature.describes:
        undecided.append("input")
    elif signature is not None:
        undecided += [f"input.{tensor.name}" for tensor in signature.inputs] or ["input"]
        draft.notes.append(_UNTOLD + (_GUESSED if signature.guessable else "write them into config.pbtxt to serve it"))
    else:
        undecided.append("input")
        draft.notes.append(f"backend '{backend.name}' cannot find out inputs: write them into config.pbtxt to serve it")
    undecided += _open_outputs(draft, backend, signature)
    if any(path.startswith("output") for path in undecided) and backend.reads_signature:
        draft.notes.append("outputs are told by the dry run when the model is loaded")
    if signature is not None and signature.describes:
        how = " (auto_complete_config)" if backend.describes else ""
        draft.notes.append(f"the model completes this itself when it is loaded{how}")
    return _finished(draft, signature, name=name, undecided=undecided)


def after_run(
    partial: PartialConfig,
    backend: Backend,
    *,
    name: str,
    signature: Signature | None,
    run: tuple[ProbeRequest, Mapping[str, Any]] | None,
) -> Preview:
    """The same with what a dry run reported: nothing is open. Raises `ConfigError` where a load would fail."""
    probed, report = run if run is not None else (None, None)
    draft = filled(partial, backend, report=report, probed=probed)
    return _finished(draft, signature, name=name, undecided=[])


def _finished(draft: Draft, signature: Signature | None, *, name: str, undecided: list[str]) -> Preview:
    message = draft.message
    effective = ModelConfigMessage()
    effective.CopyFrom(message)
    freeze.normalise(effective, name=name)
    validate.check(_known(effective) if undecided else effective, name=name, source=draft.source)
    for field, _value in effective.ListFields():
        if field.name not in ("input", "output"):
            draft.origins.setdefault(field.name, "default")
    draft.origins.setdefault("max_batch_size", "default")
    return Preview(
        message=message,
        effective=effective,
        origins=draft.origins,
        open=tuple(undecided),
        conflicts=draft.conflicts,
        notes=tuple(draft.notes) + (signature.warnings if signature is not None else ()),
    )


def _guess_batch(draft: Draft, partial: PartialConfig, largest: int, inputs: list[dict[str, Any]]) -> None:
    """The batch size that a load chooses if the dry run at batch 1, 2 and 3 succeeds."""
    if "max_batch_size" in partial.given:
        return
    draft.origins["max_batch_size"] = GUESS
    shapes = [entry["dims"] for entry in inputs]
    fixed = any("declared" in entry and entry["dims"][:1] != [-1] for entry in inputs)
    if fixed or not all(shapes) or len({shape[0] for shape in shapes}) != 1 or not largest:
        draft.notes.append("no batching: the inputs have no first dimension in common that may vary")
        return
    draft.message.max_batch_size = largest
    draft.notes.append("max_batch_size is a guess: the dry run at load decides whether the model batches")
    if draft.message.WhichOneof("scheduling_choice") is None:
        draft.message.dynamic_batching.SetInParent()
        draft.origins["dynamic_batching"] = GUESS


def _open_outputs(draft: Draft, backend: Backend, signature: Signature | None) -> list[str]:
    """Outputs of which the datatype or the dims are not known yet; those that the file declares are filled in."""
    message = draft.message
    if message.output:
        told_later = [tensor for tensor in message.output if not v2_name(tensor.data_type) or not tensor.dims]
        return [f"output.{tensor.name}" for tensor in told_later] if backend.reads_signature else []
    if signature is None:
        return ["output"]
    if signature.outputs and all(tensor.known for tensor in signature.outputs):
        _declared_outputs(draft, signature)
        return []
    return [f"output.{name}" for name in output_names(signature)] or ["output"]


def _declared_outputs(draft: Draft, signature: Signature) -> None:
    for told in signature.outputs:
        tensor = draft.message.output.add()
        tensor.name = told.name
        tensor.data_type = number_of(told.datatype or "")
        dims = told.dims if told.dims is not None else told.shape or ()
        batching = draft.message.max_batch_size > 0
        put_dims(tensor, dims[1:] if batching else dims, batching=batching, declared=told.dims is not None)
        draft.origins[f"output.{told.name}"] = "file"


def _known(message: Any) -> Any:
    """The message without tensors that a dry run has yet to complete."""
    known = ModelConfigMessage()
    known.CopyFrom(message)
    for tensors in (known.input, known.output):
        kept = [tensor for tensor in tensors if v2_name(tensor.data_type) and (tensor.dims or message.max_batch_size)]
        copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
        del tensors[:]
        tensors.extend(copies)
    return known
