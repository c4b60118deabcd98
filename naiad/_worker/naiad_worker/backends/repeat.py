"""IN to as many responses, each after its DELAY: the decoupled backend of tests. WAIT releases the request early."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from naiad_worker.arena import NoRoom
from naiad_worker.backends import LoadSpec, require_decoupled, tensor_indexes

FORKS = True
_SLICE = 0.05


def preimport() -> None:
    """There is no framework to import."""


class Backend:
    """One instance."""

    def __init__(self, spec: LoadSpec) -> None:
        require_decoupled(spec, "repeat")

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Finds IN, DELAY and WAIT, OUT and IDX by name."""
        self._in, self._delay, self._wait = tensor_indexes(inputs, "IN", "DELAY", "WAIT")
        self._out, self._idx = tensor_indexes(outputs, "OUT", "IDX")

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """There is nothing to warm up."""
        return {}

    def stream(self, inputs: dict[int, Any], sender: Any) -> None:
        """Returns after WAIT milliseconds; the responses go out from a thread meanwhile and later."""
        values, delays = inputs[self._in], inputs[self._delay]
        if values.size != delays.size:
            raise ValueError(f"expected as many elements in DELAY as in IN, got {delays.size} and {values.size}")
        shape = (1,) * values.ndim
        # The inputs are gone when this returns.
        steps = list(zip(values.reshape(-1).tolist(), delays.reshape(-1).tolist()))
        threading.Thread(target=self._respond, args=(sender, steps, shape), name="repeat", daemon=True).start()
        _wait(sender, float(inputs[self._wait].reshape(-1)[0]) / 1e3)

    def _respond(self, sender: Any, steps: list[tuple[int, int]], shape: tuple[int, ...]) -> None:
        try:
            for index, (value, delay) in enumerate(steps):
                if not _wait(sender, delay / 1e3):
                    break
                out = np.full(shape, value, dtype=np.int32)
                sender.send([(self._out, out), (self._idx, np.full(shape, index, dtype=np.uint32))])
            sender.finish()
        except NoRoom as error:
            sender.fail(str(error), status=5)
        except OSError:
            pass  # the server is gone

    def finalize(self) -> None:
        """There is nothing to give back."""


def _wait(sender: Any, seconds: float) -> bool:
    """Whether the request is still wanted after so long."""
    end = time.monotonic() + seconds
    while not sender.is_cancelled():
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, _SLICE))
    return False
