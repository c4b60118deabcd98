"""What every instance of a version is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from naiad.backends import onnxruntime, pytorch
from naiad.config import pbtxt
from naiad.config.freeze import freeze
from naiad.config.probe import ProbeRequest
from naiad.server.load_request import LoadRequest
from naiad.server.plan import plan_of

TEXT = """max_batch_size: {} input {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }}"""
PROBED = ProbeRequest([{"name": "x", "datatype": "FP32", "dims": [1, 4]}], batched=True)


@pytest.mark.parametrize(
    ("backend", "largest", "sizes", "calls"),
    [
        (pytorch.BACKEND, 8, [1, 8], 3),
        (pytorch.BACKEND, 0, [0], 3),
        (onnxruntime.BACKEND, 8, [1], 1),
        (onnxruntime.BACKEND, 0, [0], 1),
    ],
)
def test_what_compiles_nothing_is_warmed_up_at_batch_1_alone(backend, largest, sizes, calls):
    partial = pbtxt.parse(TEXT.format(largest), "config.pbtxt")
    config = freeze(partial.message, name="m", source="config.pbtxt")
    request = LoadRequest(model="m", version=1, directory=Path("m"), partial=partial)
    plan = plan_of(request, config, {}, backend.warm_up_calls, PROBED)
    assert plan.warm_up == [{"inputs": PROBED.inputs, "batch_sizes": sizes, "count": calls}]
