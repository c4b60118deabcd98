"""What a dry run is told: the inputs of a model, from what was written and from what its file says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from naiad.config import guessed, patch
from naiad.config.message import v2_name
from naiad.config.pbtxt import PartialConfig
from naiad.errors import ConfigError
from naiad.signature.model import Signature, TensorSignature

ARGUMENT = "naiad.argument."
"""Key of `parameters` that maps an input's name onto an argument of the model."""

DICTIONARY = "Dict[str, Tensor]"
"""The type of an argument that takes the inputs by name."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What the dry run is told."""

    inputs: list[dict[str, Any]]
    """Name, argument, datatype and dims of each; `declared` where the file says which of the dims are open, else
    `fixed`: for each dim whether a size was written."""
    batched: bool
    max_batch: int | None = None
    """The largest batch that the file allows."""
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Dims of the outputs as the file declares them."""
    signature: Signature | None = field(default=None, compare=False)
    runs: bool = True
    """Whether the model ran: else there is nothing to warm it up with."""
    decides: bool = True
    """Whether a run that fails refuses the model: not where everything is written and the file tells no shapes, for
    zeros need not be values that it takes."""

    def at(self, shapes: Mapping[str, list[int]]) -> ProbeRequest:
        """The same with the shapes at which the model ran: warm-up calls use them."""
        inputs = [{**entry, "dims": shapes[entry["name"]]} for entry in self.inputs]
        return replace(self, inputs=inputs)


def argument_of(message: Any, name: str) -> str | None:
    """The argument that the configuration maps an input onto."""
    key = f"{ARGUMENT}{name}"
    return message.parameters[key].string_value if key in message.parameters else None


def is_literal(partial: PartialConfig) -> bool:
    """Whether dims of inputs or outputs were written: then batch size and dims mean what they say."""
    message = partial.message
    return any(has_dims(tensor) for tensors in (message.input, message.output) for tensor in tensors)


def has_dims(tensor: Any) -> bool:
    """Whether the dims of a tensor were written, as they are or by a reshape."""
    return bool(tensor.dims) or tensor.HasField("reshape")


def _batched(partial: PartialConfig) -> bool:
    """Whether the first dim is taken for the batch: it is written so, or nothing is written about it."""
    if partial.message.max_batch_size > 0:
        return True
    return "max_batch_size" not in partial.given and not is_literal(partial)


def _called(signature: Signature) -> str:
    """The inputs of the file, as one says them."""
    names = ", ".join(tensor.name for tensor in signature.inputs)
    return f"forward({names})" if signature.backend == "pytorch" else f"the file ({names})"


def _position(name: str, position: int, signature: Signature, count: int) -> int | None:
    """Which argument of the file an input is; None if nothing says."""
    names = [tensor.name for tensor in signature.inputs]
    if name in names:
        return names.index(name)
    paths = [tensor.path for tensor in signature.inputs]
    if name and name in paths:
        return paths.index(name)
    numbered = re.fullmatch(r".*__(\d{1,9})", name)
    if numbered and int(numbered[1]) < len(names):
        return int(numbered[1])
    return position if count == 1 and len(names) == 1 else None


def probe_request(partial: PartialConfig, signature: Signature | None) -> ProbeRequest:
    """The inputs of the dry run; raises `ConfigError` where neither configuration nor file tells them."""
    message = partial.message
    if signature is not None and [tensor.type for tensor in signature.inputs] == [DICTIONARY]:
        signature = replace(signature, inputs=())  # its inputs are the dictionary's keys, which only the user knows
    if message.input:
        return _probe_configured(partial, signature)
    if signature is None or not signature.complete:
        raise ConfigError(guessed.untold(signature))
    inputs = [_entry(tensor.name, tensor, list(tensor.dims or tensor.shape or ())) for tensor in signature.inputs]
    written_zero = "max_batch_size" in partial.given and message.max_batch_size == 0
    return _request(inputs, signature, batched=not written_zero)


def _entry(name: str, told: TensorSignature, dims: list[int]) -> dict[str, Any]:
    entry = {"name": name, "argument": told.name, "datatype": told.datatype, "dims": dims}
    if told.guesses:
        return {**entry, "dims": list(told.guesses[0]), "guesses": [list(guess) for guess in told.guesses]}
    if told.dims is None:
        return entry if told.shape is None else {**entry, "traced": list(told.shape)}
    example = {} if told.shape is None else {"example": list(told.shape)}
    return {**entry, "declared": True, **example}


def _request(inputs: list[dict[str, Any]], signature: Signature | None, *, batched: bool) -> ProbeRequest:
    if signature is None:
        return ProbeRequest(inputs, batched)
    outputs = {tensor.name: tensor.dims for tensor in signature.outputs if tensor.dims is not None}
    return ProbeRequest(inputs, batched, signature.max_batch, outputs, signature)


def _probe_configured(partial: PartialConfig, signature: Signature | None) -> ProbeRequest:
    message = partial.message
    batched = _batched(partial)
    where = partial.source
    told = signature.inputs if signature is not None else ()
    _count(where, len(message.input), signature)
    inputs: list[dict[str, Any]] = []
    taken: dict[int, str] = {}
    for position, tensor in enumerate(message.input):
        argument = argument_of(message, tensor.name)
        place = None
        if signature is not None and told:
            place = _position(argument or tensor.name, position, signature, len(message.input))
            _unambiguous(where, tensor.name, place, signature, taken)
        recorded = told[place] if place is not None else None
        dims = _written_dims(tensor, recorded, batched=batched)
        fixed = [dim != -1 for dim in dims]
        if recorded is not None:
            _agree(where, tensor, dims, recorded)
            dims = _as_told(dims, recorded)
            argument = argument or recorded.name
        datatype = v2_name(tensor.data_type) or (recorded.datatype if recorded else None)
        if not datatype:
            raise ConfigError(
                f"{where}: input '{tensor.name}': data_type: expected a datatype such as TYPE_FP32, got none"
            )
        known = recorded if recorded is not None else TensorSignature(name=argument or "", type="")
        entry = _written(tensor.name, datatype, dims, known)
        inputs.append(entry if "declared" in entry or not has_dims(tensor) else {**entry, "fixed": fixed})
    rest = [tensor for place, tensor in enumerate(told) if place not in taken and _declared(tensor)]
    inputs += [_entry(tensor.name, tensor, list(tensor.dims or ())) for tensor in rest]
    shaped = any(tensor.known for tensor in told)
    return replace(_request(inputs, signature, batched=batched), decides=shaped or not _whole(message))


def _whole(message: Any) -> bool:
    """Whether inputs and outputs are written, all of them with datatype and dims."""
    tensors = (*message.input, *message.output)
    return bool(message.output) and all(v2_name(tensor.data_type) and tensor.dims for tensor in tensors)


def _count(where: str, written: int, signature: Signature | None) -> None:
    """As many inputs as the file has; fewer where it declares those that are not written."""
    told = signature.inputs if signature is not None else ()
    if signature is None or not told or written == len(told):
        return
    needed = [tensor for tensor in told if not tensor.optional]
    if not len(needed) <= written <= len(told) and not (written < len(told) and all(map(_declared, told))):
        raise ConfigError(f"{where}: input: expected {len(told)} as in {_called(signature)}, got {written}")


def _declared(tensor: TensorSignature) -> bool:
    return tensor.datatype is not None and tensor.dims is not None


def _written_dims(tensor: Any, recorded: TensorSignature | None, *, batched: bool) -> list[int]:
    """The dims that the model is to see, the batch included: as written, else as the file has them."""
    if recorded is not None and recorded.known and not has_dims(tensor):
        return list(recorded.dims if recorded.dims is not None else recorded.shape or ())
    dims = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
    if recorded is not None and recorded.dims == () and dims == [1] and not batched:
        return []  # a configuration has no dims for a scalar: [1] stands for it
    return [-1, *dims] if batched else dims


def _written(name: str, datatype: str, dims: list[int], told: TensorSignature) -> dict[str, Any]:
    """The entry of an input whose datatype and dims were written."""
    dims = dims if told.dims is not None else [1 if dim == -1 else dim for dim in dims]
    entry = {**_entry(name, told, dims), "datatype": datatype}
    return entry if told.name else {key: value for key, value in entry.items() if key != "argument"}


def _as_told(dims: list[int], told: TensorSignature) -> list[int]:
    """The written dims, open ones as the file has them."""
    shape = told.dims if told.dims is not None else told.shape or ()
    return [shape[at] if dim == -1 and at < len(shape) else dim for at, dim in enumerate(dims)]


def _unambiguous(where: str, name: str, place: int | None, signature: Signature, taken: dict[int, str]) -> None:
    """Each input is one argument: an order that is guessed would swap inputs silently."""
    if place is None:
        what = "the name of an argument of" if signature.backend == "pytorch" else "a name of"
        raise ConfigError(
            f"{where}: input '{name}': expected {what} {_called(signature)}, or INPUT__0 to "
            f"INPUT__{len(signature.inputs) - 1}; write parameters '{ARGUMENT}{name}' to map it"
        )
    if place in taken:
        raise ConfigError(
            f"{where}: input '{name}': it is argument '{signature.inputs[place].name}', and so is '{taken[place]}'"
        )
    taken[place] = name


def _agree(where: str, tensor: Any, dims: list[int], recorded: TensorSignature) -> None:
    """The written datatype, rank and fixed dims against those of the file."""
    written = v2_name(tensor.data_type)
    declared = recorded.dims is not None
    if written and recorded.datatype and written != recorded.datatype and not recorded.by_convention:
        raise ConfigError(
            f"{where}: input '{tensor.name}': data_type: expected TYPE_{recorded.datatype} "
            f"as {'declared in the file' if declared else 'traced'}, got TYPE_{written} (DTYPE_MISMATCH); "
            f"{_mended(tensor, dims, recorded)}"
        )
    told = recorded.dims if declared else recorded.shape
    if told is None:
        return
    fixed = declared and any(-1 not in (dim, other) and dim != other for dim, other in zip(dims, told, strict=False))
    if len(dims) != len(told) or fixed:
        raise ConfigError(
            f"{where}: input '{tensor.name}': dims: expected {len(told)} dims with the batch as in the "
            f"{'declared' if declared else 'traced'} shape {list(told)}, got {dims} (IO_MISMATCH); "
            f"{_mended(tensor, dims, recorded)}"
        )


def _mended(tensor: Any, dims: list[int], recorded: TensorSignature) -> str:
    """The input as the file has it, as a line to write; `dims` are the written ones, with the batch if there is one."""
    told = recorded.dims if recorded.dims is not None else recorded.shape or ()
    own = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
    rest = told[1:] if len(dims) > len(own) else told
    return patch.write(patch.line("input", tensor.name, recorded.datatype or "FP32", rest))
