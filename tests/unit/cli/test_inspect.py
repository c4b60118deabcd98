"""`naiad inspect` as a user runs it: no server, nothing executed, one exit code for each way to end."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from naiad.cli import inspect as command
from naiad.config import pbtxt

ROOT = Path(__file__).resolve().parents[3]
MNIST = ROOT / "examples/mnist/model-repo/mnist-cnn"
IDENTITY = """backend: "identity"
input { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] }
"""


def inspect(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-m", "naiad", "inspect", *map(str, words)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env=environment)


def model(root: Path, text: str | None, *versions: str) -> Path:
    for version in versions:
        (root / version).mkdir(parents=True)
    root.mkdir(exist_ok=True)
    if text is not None:
        (root / "config.pbtxt").write_text(text)
    return root


@pytest.mark.parametrize("path", [MNIST / "1/model.pt", MNIST / "1", MNIST, MNIST.parent])
def test_every_way_to_name_a_model_shows_it_with_origins(path):
    ended = inspect(path)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = {cells[0]: cells[1:] for cells in (line.split() for line in ended.stdout.splitlines()) if len(cells) > 1}
    assert rows["input.model_input"] == ["FP32", "[1,", "32,", "32]", "file"]
    assert rows["max_batch_size"] == ["32", "guess"]
    assert rows["output.OUTPUT__0"] == ["?", "dry", "run", "at", "load"]


def test_json_holds_the_signature_the_configuration_and_the_origins():
    document = json.loads(inspect(MNIST / "1/model.pt", "-o", "json").stdout)
    assert document["signature"] == {
        "inputs": [
            {"name": "model_input", "type": "Tensor", "datatype": "FP32", "shape": [1, 1, 32, 32], "dims": None}
        ],
        "outputs": [],
        "output_type": "Tensor",
        "max_batch": None,
    }
    assert document["config"]["max_batch_size"] == 32
    assert document["config"]["runtime"] == ""  # W63
    assert document["origins"]["input.model_input"] == "file"
    assert document["open"] == ["output.OUTPUT__0"]


def exported(path: Path) -> Path:
    """A program of torch.export: x [batch, 4] to y [batch, 2], exported with a batch of 2, for 16 at most."""
    batch = {"as_expr": {"expr_str": "Symbol('s0', integer=True)", "hint": {"as_int": 2}}}
    x, y = ({"dtype": 7, "sizes": [batch, {"as_int": width}]} for width in (4, 2))
    leaf = {"type": None, "context": None, "children_spec": []}
    specs = [
        {f"user_{side}": {"arg": {"as_tensor": {"name": name}}}} for side, name in (("input", "x"), ("output", "y"))
    ]
    module = {
        "graph": {"tensor_values": {"x": x, "y": y}},
        "signature": {"input_specs": specs[:1], "output_specs": specs[1:]},
        "module_call_graph": [{"fqn": "", "signature": {"out_spec": json.dumps([1, leaf])}}],
    }
    with zipfile.ZipFile(path, "w") as archive:
        program = {"graph_module": module, "range_constraints": {"s0": {"min_val": 1, "max_val": 16}}}
        archive.writestr("net/models/model.json", json.dumps(program))
    return path


def test_json_tells_the_example_from_what_the_file_declares(tmp_path):
    signature = json.loads(inspect(exported(tmp_path / "net.pt2"), "-o", "json").stdout)["signature"]
    tensors = [(kind, tensor["shape"], tensor["dims"]) for kind in ("inputs", "outputs") for tensor in signature[kind]]
    assert tensors == [("inputs", [2, 4], [-1, 4]), ("outputs", [2, 2], [-1, 2])]
    assert signature["max_batch"] == 16


def test_pbtxt_is_a_configuration_that_says_the_same(tmp_path):
    text = inspect(MNIST / "1/model.pt", "-o", "pbtxt").stdout
    folder = model(tmp_path / "copy", text, "1")
    (folder / "1/model.pt").write_bytes((MNIST / "1/model.pt").read_bytes())
    document = json.loads(inspect(folder, "-o", "json").stdout)
    assert document["origins"]["input"] == document["origins"]["max_batch_size"] == "config.pbtxt"
    (tensor,) = document["config"]["input"]
    assert (tensor["name"], tensor["data_type"], tensor["dims"]) == ("model_input", "TYPE_FP32", [1, 32, 32])
    assert pbtxt.parse(text, "x").message.backend == "pytorch"


def test_a_model_that_needs_no_file_is_shown_whole(tmp_path):
    folder = model(tmp_path / "echo", IDENTITY, "1", "3", "03")
    document = json.loads(inspect(folder, "-o", "json").stdout)
    assert (document["file"], document["signature"], document["open"]) == (None, None, [])
    assert document["config"]["name"] == "echo"
    assert document["origins"]["instance_group"] == "default"
    assert document["notes"] == ["ignored: '03' is no version (a number without leading zeros)"]
    assert "none is needed" in inspect(folder).stdout


def test_a_file_of_another_name_is_shown_and_said_not_to_be_the_served_one(tmp_path):
    folder = model(tmp_path / "m", None, "1")
    for name in ("model.pt", "old.pt"):
        (folder / "1" / name).write_bytes((MNIST / "1/model.pt").read_bytes())
    ended = inspect(folder / "1/old.pt")
    assert "note: 'old.pt' is not the file that is served: that is 'model.pt'" in ended.stdout


def state_dict(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02ccollections\nOrderedDict\n)R.")
    return path


def broken(tmp_path: Path) -> dict[str, tuple[Path, int, str]]:
    """Name → (path, exit code, first line of stderr)."""
    state_dict(tmp_path / "weights.pt")
    model(tmp_path / "typo", 'backend: "identity"\nmax_batchsize: 1\n', "1")
    model(tmp_path / "named", IDENTITY + 'name: "other"', "1")
    model(tmp_path / "bare", IDENTITY)
    model(tmp_path / "later", 'backend: "openvino"', "1")
    model(tmp_path / "gone", 'backend: "pytorch"', "1")
    model(tmp_path / "blank ", IDENTITY, "1")
    model(tmp_path / "escape", 'backend: "pytorch" default_model_filename: "../../weights.pt"', "1")
    model(tmp_path / "two/a", IDENTITY, "1")
    model(tmp_path / "two/b", IDENTITY, "1")
    (tmp_path / "void").mkdir()
    (tmp_path / "page.pt").write_text("<html>")
    return {
        "no such path": (
            tmp_path / "Weights.PT", 5,
            f"'{tmp_path}/Weights.PT' does not exist; did you mean 'weights.pt'?",
        ),
        "nothing there": (
            tmp_path / "void", 5,
            "'void' holds no model: no version directory such as '1' and no model file (PATH_NOT_FOUND)",
        ),
        "blank forgotten": (tmp_path / "blank", 5, f"'{tmp_path}/blank' does not exist; did you mean 'blank '?"),
        "blank": (
            tmp_path / "blank ", 1,
            "the directory name 'blank ' has characters that a model name may not have; did you mean 'blank'? "
            "(CONFIG_INVALID)",
        ),
        "weights": (
            tmp_path / "weights.pt", 1,
            "'weights.pt' holds weights only (a state dict), without the model's code (WEIGHTS_ONLY)",
        ),
        "page": (tmp_path / "page.pt", 1, "'page.pt' is a web page, not a model (NOT_A_MODEL)"),
        "typo": (
            tmp_path / "typo", 1,
            'config.pbtxt:2:1: Message type "inference.ModelConfig" has no field named "max_batchsize"; '
            "did you mean 'max_batch_size'? (in: max_batchsize: 1) (CONFIG_INVALID)",
        ),
        "name": (tmp_path / "named", 1, "config.pbtxt: name: expected the directory's name 'named', got 'other' "
            "(CONFIG_INVALID)"),
        "no version": (
            tmp_path / "bare", 1,
            "'bare' is a model directory without a version directory (a positive number such as '1') "
            "(LAYOUT_NO_VERSION)",
        ),
        "backend": (
            tmp_path / "later", 1,
            "backend 'openvino': OpenVINO models come with a later version of Naiad (FORMAT_NOT_SERVED)",
        ),
        "no file": (tmp_path / "gone", 1, "'1/model.pt' does not exist; the folder holds nothing (PATH_NOT_FOUND)"),
        "outside": (
            tmp_path / "escape", 1,
            "path '../../weights.pt': expected a path inside the model's directory (CONFIG_INVALID)",
        ),
        "two models": (tmp_path / "two", 1, "'two' holds several models: 'a', 'b' (PATH_AMBIGUOUS)"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "case",
    ["no such path", "nothing there", "blank forgotten", "blank", "weights", "page", "typo", "name", "no version",
     "backend", "no file", "outside", "two models"],
)  # fmt: skip
def test_a_refusal_is_one_error_line_with_its_exit_code(tmp_path, case, capsys):
    path, code, message = broken(tmp_path)[case]
    ended = command.inspect(path, "json")
    printed = capsys.readouterr()
    assert (printed.out, ended) == ("", code)
    assert printed.err.splitlines()[0] == f"error: {message}"


def test_the_exit_code_reaches_the_shell(tmp_path):
    ended = inspect(tmp_path / "none.pt")
    assert (ended.stdout, ended.returncode) == ("", 5)
    assert ended.stderr == f"error: '{tmp_path}/none.pt' does not exist\n"


def test_names_from_a_file_cannot_steer_the_terminal(tmp_path):
    evil = tmp_path / "evil\x1b[2J.pt"
    evil.write_text("x")
    ended = inspect(evil)
    assert ended.returncode == 1
    assert "\x1b" not in ended.stderr


def test_an_unknown_form_is_a_usage_error():
    assert inspect(MNIST, "-o", "xml").returncode == 2


def test_yaml_says_what_json_says():
    ended = inspect(MNIST, "-o", "yaml")
    document = json.loads(inspect(MNIST, "-o", "json").stdout)
    assert (ended.returncode, yaml.safe_load(ended.stdout)) == (0, document)
    assert "format: TorchScript (traced)\n" in ended.stdout


def test_d4_a_python_model_is_read_and_not_run(tmp_path, capsys):
    canary = tmp_path / "ran"
    code = f"open({str(canary)!r}, 'w')\nclass TritonPythonModel:\n    def execute(self, requests): ...\n"
    tells = "    @staticmethod\n    def auto_complete_config(config):\n        return config\n"
    (model(tmp_path / "m", None, "1") / "1/model.py").write_text(code + tells)
    assert command.inspect(tmp_path / "m", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["format"], document["config"]["backend"]) == ("Triton Python model", "python")
    assert document["open"] == ["input", "output"]
    assert document["notes"] == ["the model completes this itself when it is loaded (auto_complete_config)"]
    (tmp_path / "model.py").write_text(code)
    assert command.inspect(tmp_path / "model.py", "json") == 0
    assert "write them into config.pbtxt" in json.loads(capsys.readouterr().out)["notes"][0]
    (tmp_path / "model.py").write_text("# TritonPythonModel\nx = (\n")
    assert command.inspect(tmp_path / "model.py", "json") == 1
    assert "'model.py' line 2: '(' was never closed (NOT_A_MODEL)" in capsys.readouterr().err
    assert not canary.exists()


def test_a_table_for_another_program_is_not_folded(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    folder = tmp_path / ("long" * 20) / "digits"
    folder.parent.mkdir()
    folder.symlink_to(MNIST)
    assert command.inspect(folder, "table") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:1] == ["file"] and line.rstrip().endswith("1/model.pt") for line in lines), lines
