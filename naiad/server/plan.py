"""What every instance of a version is told: how to load, how to warm up, which tensors it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naiad.config.model import ModelConfig, WarmUpSample
from naiad.config.probe import ProbeRequest, argument_of
from naiad.errors import ConfigError
from naiad.repository.paths import below
from naiad.server.load_request import LoadRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """What every instance of a version is told."""

    load: dict[str, Any]
    table: dict[str, Any]
    warm_up: list[dict[str, Any]]
    """WARMUP messages."""


def plan_of(
    request: LoadRequest, config: ModelConfig, load: Mapping[str, Any], calls: int, probed: ProbeRequest | None
) -> Plan:
    """The plan of a finished configuration: `load` is LOAD's message, `calls` how often a dry run is repeated.

    Raises `ConfigError` for a sample's file that is not there.
    """
    message = request.partial.message
    probes = {entry["name"]: entry for entry in probed.inputs} if probed else {}
    inputs: list[dict[str, Any]] = []
    for tensor in config.inputs:
        entry = {"name": tensor.name, "datatype": tensor.datatype, "dims": list(tensor.model_dims)}
        argument = argument_of(message, tensor.name) or probes.get(tensor.name, {}).get("argument")
        inputs.append({**entry, "argument": argument} if argument else entry)
    outputs = [
        {"name": tensor.name, "datatype": tensor.datatype, "dims": list(tensor.model_dims)} for tensor in config.outputs
    ]
    table = {
        "inputs": inputs,
        "outputs": outputs,
        "max_batch_size": config.max_batch_size,
        "decoupled": config.decoupled,
    }
    warm_up = []
    if probed is not None and probed.runs:
        sizes = sorted({1, config.max_batch_size if calls > 1 else 1}) if config.max_batch_size else [0]
        warm_up.append({"inputs": probed.inputs, "batch_sizes": sizes, "count": calls})
    arguments = {entry["name"]: entry["argument"] for entry in inputs if "argument" in entry}
    warm_up += [_warm_up(sample, request.directory, arguments) for sample in config.warm_up]
    return Plan({**load, "config": dict(config.document)}, table, warm_up)


def _warm_up(sample: WarmUpSample, directory: Path, arguments: Mapping[str, str]) -> dict[str, Any]:
    """The WARMUP message of a sample; raises `ConfigError` for a file that is not there (C2)."""
    inputs = []
    for tensor in sample.inputs:
        dims = [sample.rows, *tensor.dims] if sample.rows else list(tensor.dims)
        entry = {"name": tensor.name, "datatype": tensor.datatype, "dims": dims, "data": tensor.data}
        if tensor.name in arguments:
            entry["argument"] = arguments[tensor.name]
        if tensor.data == "file":
            path = below(directory / "warmup", tensor.file)
            if not path.is_file():
                place = f"model_warmup '{sample.name}': input '{tensor.name}': input_data_file"
                raise ConfigError(f"{place}: 'warmup/{tensor.file}' does not exist")
            entry["path"] = str(path)
        inputs.append(entry)
    return {"sample": sample.name, "inputs": inputs, "batch_sizes": [0], "count": sample.count}


def labels_of(config: ModelConfig, directory: Path) -> dict[str, Sequence[str]]:
    """Lines of the label files by output name; raises `ConfigError`."""
    labels: dict[str, Sequence[str]] = {}
    for output in config.outputs:
        if output.label_filename:
            path = below(directory, output.label_filename)
            if not path.is_file():
                raise ConfigError(f"output '{output.name}': label_filename: '{output.label_filename}' does not exist")
            try:
                labels[output.name] = path.read_text("utf-8").splitlines()
            except UnicodeDecodeError as error:
                place = f"output '{output.name}': label_filename: '{output.label_filename}'"
                raise ConfigError(f"{place}: expected UTF-8 text, got {error.object[error.start]:#04x}") from error
    return labels
