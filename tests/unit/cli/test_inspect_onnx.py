"""`naiad inspect` on ONNX files: what is declared is shown, and no framework is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from naiad.cli import inspect as command
from naiad.config import pbtxt
from tests.support import onnx_models, real_models
from tests.support.onnx_models import affine, save

pytest.importorskip("onnx", reason=onnx_models.REASON)

SCRIPT = """
import sys
from pathlib import Path
from naiad.cli.inspect import inspect
code = inspect(Path(sys.argv[1]), "json")
frameworks = {"onnx", "onnxruntime", "torch", "tensorflow", "sklearn"} & set(sys.modules)
assert not frameworks, frameworks
sys.exit(code)
"""


@pytest.mark.parametrize("place", ["model.onnx", "digits.onnx", "m/1/model.onnx"])
def test_a_file_is_shown_without_its_framework(tmp_path, place):
    path = save(affine(), tmp_path / place)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)
    assert shown["format"] == "ONNX (IR 8, opset 17)"
    assert shown["open"] == []
    config = shown["config"]
    assert (config["backend"], config["max_batch_size"]) == ("onnxruntime", 4)
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["input"]] == [("x", "TYPE_FP32", [4])]
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["output"]] == [("y", "TYPE_FP32", [4])]
    assert shown["origins"]["output.y"] == "file"


@pytest.mark.parametrize("name", [name for name in real_models.FILES if name.endswith(".onnx")])
def test_a_real_file_gives_a_configuration_to_keep(name, capsys):
    assert command.inspect(real_models.path(name), "pbtxt") == 0
    message = pbtxt.parse(capsys.readouterr().out, "x").message
    assert message.backend == "onnxruntime"
    assert message.input and message.output
    assert all(tensor.dims for tensors in (message.input, message.output) for tensor in tensors)


def test_a_file_of_another_backend_is_refused(tmp_path, capsys):
    path: Path = save(affine(), tmp_path / "m/1/model.pt")
    (tmp_path / "m/config.pbtxt").write_text('backend: "pytorch"')
    assert command.inspect(path.parents[1], "table") == 1
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == (
        "error: 'model.pt' is of format ONNX (IR 8, opset 17), which backend 'onnxruntime' runs, and not 'pytorch' "
        "(BACKEND_MISMATCH)"
    )
    assert printed[1].startswith('fix: write backend: "onnxruntime" into config.pbtxt')
