"""IN = n to n responses OUT = n: the decoupled backend of tests that answers before it returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from naiad_worker.backends import LoadSpec, require_decoupled, tensor_indexes

FORKS = True


def preimport() -> None:
    """There is no framework to import."""


class Backend:
    """One instance."""

    def __init__(self, spec: LoadSpec) -> None:
        require_decoupled(spec, "square")

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Finds IN and OUT by name."""
        (self._in,) = tensor_indexes(inputs, "IN")
        (self._out,) = tensor_indexes(outputs, "OUT")

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """There is nothing to warm up."""
        return {}

    def stream(self, inputs: dict[int, Any], sender: Any) -> None:
        """Sends all responses and the end."""
        array = inputs[self._in]
        count = int(array.reshape(-1)[0])
        out = np.full((1,) * array.ndim, count, dtype=np.int32)
        for _ in range(count):
            if sender.is_cancelled():
                break
            sender.send([(self._out, out)])
        sender.finish()

    def finalize(self) -> None:
        """There is nothing to give back."""
