"""What workers are told of the options that the server was started with."""

from __future__ import annotations

from typing import Any

import pytest

from naiad.backends import onnxruntime, pytorch
from naiad.config import pbtxt
from naiad.server import backend_config
from naiad.server.interpreter import Interpreter
from naiad.server.load_request import LoadRequest
from naiad.server.starter import Starter, StarterOptions


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
    options = StarterOptions(load_timeout_secs=1, backends=backend_config.parse(texts), interpreters=interpreters)
    starter = Starter(asked, options)
    request = LoadRequest(model="m", version=1, directory=tmp_path, partial=pbtxt.parse("", "config.pbtxt"))
    specs = []
    for backend in (onnxruntime.BACKEND, pytorch.BACKEND):
        with pytest.raises(Started) as caught:
            starter.start(request, (backend, tmp_path, "model.x"), instance=0, device={"kind": "cpu"})
        specs.append(caught.value.args[0])
    assert [(spec.threads, spec.start_timeout_secs) for spec in specs] == [(3, 7), (1, None)]
    message = starter.message(request, (onnxruntime.BACKEND, tmp_path, "model.onnx"))
    assert (message["threads"], message["settings"]) == (3, {"inter_op_thread_count": "2"})
