"""INPUTi to OUTPUTi, any type and shape: the backend of tests and benches."""

from __future__ import annotations

import json
import time
from typing import Any

from naiad_worker.backends import LoadSpec

FORKS = True

# The same on every response, so it is made once.
_PARAMETERS = json.dumps(
    {"param0": "an example string parameter", "param1": 42, "param2": False, "param3": 123.123},
    separators=(",", ":"),
).encode()


def preimport() -> None:
    """There is no framework to import."""


def _number(config: dict[str, Any], name: str) -> float:
    value = config.get("parameters", {}).get(name, {}).get("string_value", "")
    return float(value) if value else 0.0


class Backend:
    """One instance."""

    def __init__(self, spec: LoadSpec) -> None:
        delay = _number(spec.config, "execute_delay_ms") / 1e3
        multiplier = _number(spec.config, "instance_wise_delay_multiplier")
        self._delay = delay * max(1.0, multiplier * spec.instance)
        time.sleep(_number(spec.config, "creation_delay_sec"))

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Pairs INPUTi with OUTPUTi by the number at the end of the name, by position where there is none."""
        names = {tensor["name"]: index for index, tensor in enumerate(outputs)}
        self._pairs: list[int | None] = []
        for position, tensor in enumerate(inputs):
            twin = names.get(tensor["name"].replace("INPUT", "OUTPUT", 1))
            self._pairs.append(twin if twin is not None else (position if position < len(outputs) else None))

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name for inputs by name."""
        return {name.replace("INPUT", "OUTPUT", 1): array for name, array in inputs.items()}

    def execute(self, inputs: dict[int, Any]) -> tuple[list[tuple[int, Any]], bytes]:
        """Output arrays by index, and response parameters; an absent optional input has no output."""
        if self._delay:
            time.sleep(self._delay)
        outputs = []
        for index, array in inputs.items():
            twin = self._pairs[index]
            if twin is not None:
                outputs.append((twin, array))
        return outputs, _PARAMETERS

    def finalize(self) -> None:
        """There is nothing to give back."""
