"""Whether the rows of a batch keep apart: a model that mixes them answers one client with another's input."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from naiad_worker.fill import zeros
from naiad_worker.tensors import BF16, BYTES, CODES, Bf16Array

NOTICED = 0.05
"""The change of an answer, as a part of its largest value, that is no rounding; quantised batches stay below."""


def mixing(
    probe: Callable[[dict[str, Any]], dict[str, Any]], inputs: list[dict[str, Any]], shapes: dict[str, list[int]]
) -> str:
    """Which output of one row changes with the row beside it; "" where none does, or where runs do not tell.

    Time before batch, a mean over the batch, attention across it: the first dim follows in all of them.
    """

    def run(first: int, second: int) -> dict[str, Any]:
        return probe(
            {
                entry.get("argument") or entry["name"]: _pair(entry["datatype"], shapes[entry["name"]], first, second)
                for entry in inputs
            }
        )

    try:
        with np.errstate(all="ignore"):
            before, again = run(0, 1), run(0, 1)
            if any(_differ(before[name], again[name], row) for name in before for row in (0, 1)):
                return ""  # its answers change by themselves
            for row, after in ((0, run(0, 2)), (1, run(2, 1))):
                for name in before:
                    if _differ(before[name], after[name], row):
                        return f"output '{name}' of one row changes with another row of the batch"
    except Exception:  # other values than zeros need not suit the model
        return ""
    return ""


def _pair(datatype: str, dims: list[int], *rows: int) -> Any:
    """A batch of two rows: fractions that their number decides; of whole numbers the third kind of row has ones."""
    code = CODES[datatype]
    array = zeros(datatype, [len(rows), *dims[1:]])
    if code == BYTES:
        return array
    for at, row in enumerate(rows):
        values = np.random.default_rng(row).random(dims[1:], dtype=np.float32)
        if code == BF16:
            np.asarray(array)[at] = (values.view(np.uint32) >> 16).astype(np.uint16)
        else:
            array[at] = values if array.dtype.kind == "f" else int(row == 2)
    return array


def _differ(one: Any, other: Any, row: int) -> bool:
    """Whether a row of fractions is another one; classes and texts tell nothing."""
    first, second = _fractions(one), _fractions(other)
    if first is None or second is None or first.shape != second.shape or not first.ndim or not first[row].size:
        return False
    first, second = first[row], second[row]
    change, largest = np.abs(first - second).max(), max(np.abs(first).max(), np.abs(second).max())
    return bool(np.isfinite(change) and change > NOTICED * largest)


def _fractions(array: Any) -> Any:
    if isinstance(array, Bf16Array):
        return (np.asarray(array).astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array, dtype=np.float64) if array.dtype.kind == "f" else None
