"""The lines of config.pbtxt that mend a contradiction between a configuration and its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def line(kind: str, name: str, datatype: str, dims: Sequence[int | str]) -> str:
    """An `input` or `output` as one writes it; dims without the batch where the model batches."""
    written = ", ".join(str(dim) for dim in dims)
    return f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: [ {written} ] }}'


def write(*lines: str) -> str:
    """What to do with such lines."""
    return f"write {' '.join(lines)} into config.pbtxt"


def of_traced(inputs: Sequence[Mapping[str, Any]], *, batched: bool) -> str:
    """What to write where a dry run fails at other dims than those of the traced example; "" where they are the same.

    `inputs` are those of a `ProbeRequest`.
    """
    first = 1 if batched else 0
    wrong = [entry for entry in inputs if "traced" in entry and entry["dims"][first:] != entry["traced"][first:]]
    lines = [line("input", entry["name"], entry["datatype"], entry["traced"][first:]) for entry in wrong]
    return write(*lines) if lines else ""
