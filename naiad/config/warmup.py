"""The warm-up samples of a configuration: checked against its inputs, in the model's own shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from naiad.config.message import v2_name
from naiad.config.model import TensorConfig, WarmUpInput, WarmUpSample
from naiad.errors import ConfigError


def samples(message: Any, inputs: Iterable[TensorConfig], *, source: str) -> tuple[WarmUpSample, ...]:
    """The samples of `model_warmup`; raises `ConfigError` naming sample and input."""
    known = {tensor.name: tensor for tensor in inputs}
    return tuple(_sample(entry, known, message.max_batch_size, source) for entry in message.model_warmup)


def _sample(entry: Any, known: dict[str, TensorConfig], max_batch_size: int, source: str) -> WarmUpSample:
    where = f"{source or 'configuration'}: model_warmup '{entry.name}'"
    batch = entry.batch_size or 1
    most = max(1, max_batch_size)
    if batch > most:
        raise ConfigError(f"{where}: batch_size: expected 1 to {most}, got {batch}")
    for name in entry.inputs:
        if name not in known:
            raise ConfigError(f"{where}: inputs: the model has no input '{name}'; it has {', '.join(known)}")
    absent = [name for name, tensor in known.items() if not tensor.optional and name not in entry.inputs]
    if absent:
        raise ConfigError(f"{where}: inputs: expected '{absent[0]}' too, which is not optional")
    made = tuple(_input(entry.inputs[name], tensor, where) for name, tensor in known.items() if name in entry.inputs)
    rows = batch if max_batch_size > 0 else 0
    return WarmUpSample(name=entry.name, rows=rows, count=entry.count or 1, inputs=made)


def _input(given: Any, tensor: TensorConfig, where: str) -> WarmUpInput:
    place = f"{where}: input '{tensor.name}'"
    datatype = v2_name(given.data_type)
    if datatype != tensor.datatype:
        raise ConfigError(f"{place}: data_type: expected the input's {tensor.datatype}, got {datatype or 'none'}")
    dims = tuple(given.dims)
    fits = len(dims) == len(tensor.dims) and all(want in (-1, dim) for want, dim in zip(tensor.dims, dims, strict=True))
    if not fits or any(dim < 1 for dim in dims):
        raise ConfigError(f"{place}: dims: expected numbers that fit {list(tensor.dims)}, got {list(dims)}")
    data = given.WhichOneof("input_data_type")
    if data is None:
        raise ConfigError(f"{place}: expected one of zero_data, random_data and input_data_file")
    return WarmUpInput(
        name=tensor.name,
        datatype=datatype,
        dims=_reshaped(dims, tensor),
        data=data.split("_")[0] if data != "input_data_file" else "file",
        file=given.input_data_file if data == "input_data_file" else "",
    )


def _reshaped(dims: tuple[int, ...], tensor: TensorConfig) -> tuple[int, ...]:
    """The dims as the model sees them; variable ones keep their order."""
    if tensor.reshape is None:
        return dims
    variable = iter(dim for want, dim in zip(tensor.dims, dims, strict=True) if want == -1)
    return tuple(next(variable) if dim == -1 else dim for dim in tensor.reshape)
