"""Golden files of effective configurations: what `naiad inspect` says before a load, and what the server then serves.

`python -m tests.support.golden --write [CASE…]` makes them anew; read the difference before it is committed. It runs
the tests that compare them, each of which has a folder of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from naiad.cli import inspect
from tests.support.formats import FORMATS, WIDE, without_machine
from tests.support.server import Serve

WRITE = "GOLDEN_WRITE"
"""Set where the files are to be written instead of compared."""
TEST = "test_the_effective_configuration_is_the_golden_one"
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


def assert_golden(server: Serve, root: Path, group: str, name: str) -> None:
    """What is said of a loaded case is what lies in GROUP/NAME.json."""
    path, said = FOLDER / group / f"{name}.json", taken(server, root, name)
    if WRITE in os.environ:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    assert said == json.loads(path.read_text()), "python -m tests.support.golden --write"


def assert_complete(group: str, names: Iterable[str]) -> None:
    """Each case has its file, and each file its case."""
    assert {path.stem for path in (FOLDER / group).iterdir()} == set(names)


def main(words: list[str]) -> int:
    if words[:1] != ["--write"]:
        print(__doc__, file=sys.stderr)
        return 2
    chosen = f"{TEST} and ({' or '.join(words[1:])})" if words[1:] else TEST
    tests = FOLDER.parents[1] / "integration"
    files = [path for path in sorted(tests.glob("test_*.py")) if f"def {TEST}(" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *map(str, files)]
    return subprocess.run(command, env={**os.environ, WRITE: "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
