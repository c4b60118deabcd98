"""What a client is told of a load that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naiad.backends import onnxruntime, pytorch
from naiad.config import pbtxt
from naiad.config.autocomplete import ProbeRequest
from naiad.config.freeze import freeze
from naiad.server import backend_config
from naiad.server.backend_config import BackendConfig
from naiad.server.interpreter import Interpreter
from naiad.server.loader import Loader, LoaderOptions, LoadRequest, without_paths

TEXT = """max_batch_size: {} input {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }}"""
PROBED = ProbeRequest([{"name": "x", "datatype": "FP32", "dims": [1, 4]}], batched=True)


def test_w69_no_text_says_where_a_model_lies(tmp_path):
    real = tmp_path / "store" / "m"
    real.mkdir(parents=True)
    link = tmp_path / "models"
    link.symlink_to(tmp_path / "store")
    for place in (link / "m", real):
        text = without_paths(f"cannot open {place}/1/model.pt of {place}: no", link / "m")
        assert text == "cannot open m/1/model.pt of m: no"
    assert without_paths("cannot open /etc/x", real) == "cannot open /etc/x"


class Started(Exception):
    """What a supervisor was asked to start, or a worker to load."""


def test_what_the_backend_is_told_reaches_its_workers(tmp_path):
    class Asked:
        def start(self, spec: Any) -> Any:
            raise Started(spec)

    texts = (
        "onnxruntime,stub-timeout-seconds=7",
        "onnxruntime,intra_op_thread_count=3",
        "onnxruntime,inter_op_thread_count=2",
    )
    interpreters: Any = type("Own", (), {"choose": lambda *_: Interpreter(python="python")})()
    asked: Any = Asked()
    options = LoaderOptions(
        load_timeout_secs=1,
        complete_configs=True,
        hold=0,
        backends=backend_config.parse(texts),
        interpreters=interpreters,
    )
    loader = Loader(asked, options)
    request = LoadRequest(model="m", version=1, directory=tmp_path, partial=pbtxt.parse("", "config.pbtxt"))
    specs = []
    for backend in (onnxruntime.BACKEND, pytorch.BACKEND):
        with pytest.raises(Started) as caught:
            loader._start(request, (backend, tmp_path, "model.x"), instance=0, device={"kind": "cpu"})
        specs.append(caught.value.args[0])
    assert [(spec.threads, spec.start_timeout_secs) for spec in specs] == [(3, 7), (1, None)]
    message = loader._load_message(request, (onnxruntime.BACKEND, tmp_path, "model.onnx"))
    assert (message["threads"], message["settings"]) == (3, {"inter_op_thread_count": "2"})


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
    nothing: Any = None
    options = LoaderOptions(
        load_timeout_secs=1, complete_configs=True, hold=0, backends=BackendConfig(), interpreters=nothing
    )
    partial = pbtxt.parse(TEXT.format(largest), "config.pbtxt")
    config = freeze(partial.message, name="m", source="config.pbtxt")
    request = LoadRequest(model="m", version=1, directory=Path("m"), partial=partial)
    place = (backend, Path("m/1"), backend.default_filename)
    plan = Loader(nothing, options)._plan(request, config, place, PROBED)
    assert plan.warm_up == [{"inputs": PROBED.inputs, "batch_sizes": sizes, "count": calls}]
