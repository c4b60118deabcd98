"""Golden files of effective configurations: what `naiad inspect` says before a load, and what the server then serves.

`python -m tests.support.golden --write [CASE…]` makes them anew; read the difference before it is committed.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import tritonclient.grpc
from google.protobuf import text_format

from naiad.cli import inspect
from tests.support.formats import FORMATS, WIDE, without_machine
from tests.support.server import Serve, serve

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "config"
IN = 'input {{ name: "x" {} }}\n'
OUT = 'output {{ name: "{}" {} }}\n'
FP32 = "data_type: TYPE_FP32"

# Case → (the format whose model it takes, config.pbtxt); each format without more is a case, too.
PARTIAL: dict[str, tuple[str, str]] = {
    "torchscript-name": ("torchscript", OUT.format("scores", "")),
    "torchscript-datatype": ("torchscript", IN.format(FP32)),
    "torchscript-dims": ("torchscript", "max_batch_size: 4\n" + IN.format(f"dims: [ {WIDE} ]")),
    "torchscript-batch": ("torchscript", "max_batch_size: 4\n"),
    "torchscript-no-batch": ("torchscript", "max_batch_size: 0\n"),
    "torchscript-literal": ("torchscript", IN.format(f"{FP32} dims: [ -1, {WIDE} ]")),
    "torchscript-outputs": ("torchscript", "max_batch_size: 4\n" + OUT.format("OUTPUT__0", f"{FP32} dims: [ 8 ]")),
    "torchscript-conflict": (
        "torchscript",
        "max_batch_size: 4\n" + IN.format(f"{FP32} dims: [ {WIDE} ]") + OUT.format("OUTPUT__0", f"{FP32} dims: [ 9 ]"),
    ),
    "torchscript-argument": (
        "torchscript",
        f'max_batch_size: 4\ninput {{ name: "image" {FP32} dims: [ {WIDE} ] }}\n'
        'parameters { key: "naiad.argument.image" value { string_value: "x" } }\n',
    ),
    "torchscript-platform": ("torchscript", 'platform: "pytorch_libtorch"\ninstance_group { count: 2 }\n'),
    "torchscript-batching": ("torchscript", "dynamic_batching { max_queue_delay_microseconds: 100 }\n"),
    "torchscript-partly-scripted": (
        "torchscript-scripted",
        "max_batch_size: 4\n" + IN.format(f"{FP32} dims: [ 1024 ]"),
    ),
    "torch-export-batch": ("torch-export", "max_batch_size: 4\n"),
    "onnx-net-batch": ("onnx", "max_batch_size: 4\n"),
    "savedmodel-batch": ("savedmodel", "max_batch_size: 4\n"),
    "skops-batch": ("skops", "max_batch_size: 4\n"),
}
CASES = {**{each.name: (each.name, each.config) for each in FORMATS}, **PARTIAL}


def add_case(root: Path, name: str) -> None:
    """Writes a partial case beside the model of its format, which is there."""
    of, text = CASES[name]
    if not (root / name).exists():
        shutil.copytree(root / of / "1", root / name / "1")
        (root / name / "config.pbtxt").write_text(text)


def taken(server: Serve, root: Path, name: str) -> dict[str, Any]:
    """What is said of a case now, without the paths of this machine; the server has loaded it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = inspect.inspect(root / name, "json")
    assert status == 0, printed.getvalue()
    said = json.loads(printed.getvalue())
    del said["file"], said["name"], said["config"]
    said["format"] = said["format"] and without_machine(said["format"])
    config = server.get(f"/v2/models/{name}/config")
    assert config.status == 200, config.body
    return {"inspect": said, "served": config.json}


def assert_text_is_golden(server: Serve, name: str) -> None:
    """The effective configuration, as gRPC gives it, is what lies in NAME.pbtxt."""
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        config = client.get_model_config(name).config
    assert text_format.MessageToString(config) == (FOLDER / f"{name}.pbtxt").read_text()


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(words: list[str]) -> int:
    if words[:1] != ["--write"] or not set(words[1:]) <= set(CASES):
        print(__doc__, file=sys.stderr)
        return 2
    asked = words[1:] or list(CASES)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "models"
        root.mkdir()
        for each in [each for each in FORMATS if each.name in {CASES[name][0] for name in asked}]:
            if reason := each.absent():
                print(f"left as it is: {each.name}: {reason}", file=sys.stderr)
            else:
                each.write(root / each.name)
        names = [name for name in asked if (root / CASES[name][0]).is_dir()]
        for name in names:
            add_case(root, name)
        with serve(root, Path(scratch) / "log", "--strict-readiness=false") as server:
            server.wait_settled(*names, seconds=300)
            FOLDER.mkdir(exist_ok=True)
            for name in names:
                (FOLDER / f"{name}.json").write_text(text_of(taken(server, root, name)))
    print(f"{len(names)} cases written to {FOLDER}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
