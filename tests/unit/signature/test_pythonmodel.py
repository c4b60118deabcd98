"""What is read of a model.py without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from naiad.errors import UnservableFile
from naiad.signature import pythonmodel

CLASS = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
TELLS = "    @staticmethod\n    def auto_complete_config(config):\n        return config\n"


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "model.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("text", "describes"),
    [
        (CLASS, False),
        (CLASS + TELLS, True),
        (CLASS.replace(":", "(object):", 1), False),
        (CLASS.replace(":", "(Base):", 1), True),
        (CLASS + "    auto_complete_config = staticmethod(lambda config: config)\n", True),
        ("@decorated\n" + CLASS, True),
        ("from parts import TritonPythonModel\n", True),
        ("from parts import Model as TritonPythonModel\n", True),
        ("from parts import *\n", True),
        ("TritonPythonModel = make()\n", True),
        ("try:\n    import fast\nexcept ImportError:\n    class TritonPythonModel:\n        pass\n", False),
        ("if True:\n    class TritonPythonModel:\n        pass\n", False),
        ("from parts import *\n" + CLASS, False),
        (CLASS + "# long\n" * 30_000, True),
        ("# -*- coding: latin-1 -*-\n# caf\xe9\n".encode("latin-1") + CLASS.encode(), False),
    ],
)
def test_whether_a_class_describes_itself(write, text, describes):
    assert pythonmodel.read(write(text)).describes is describes


REFUSED = {
    "no class": ("class Model:\n    pass\n", "'model.py' has no class TritonPythonModel"),
    "in a function": (f"def f():\n    {CLASS.splitlines()[0]}\n        pass\n", "has no class TritonPythonModel"),
    "syntax": ("import os\n\ndef f(:\n", "'model.py' line 3: invalid syntax"),
    "indentation": ("class TritonPythonModel:\npass\n", "'model.py' line 2: expected an indented block"),
    "binary": (b"\x80\x02}q\x00.", "is no text"),
    "zeros": (b"\x00" * 100, "is no text"),
    "encoding": (b"# -*- coding: nonsense -*-\nx = 1\n", "unknown encoding"),
    "empty": ("", "'model.py' is empty"),
    "blank": ("\n  \n", "'model.py' is empty"),
    "long": ("x = 1\n" * 3_000_000, "is longer than 16777216 bytes"),
    "parentheses": ("x = " + "(" * 10_000, "too many nested parentheses"),
    "unary": ("x = " + "-" * 10_000 + "1", "nested too deeply"),
    "attributes": ("x = a" + ".a" * 10_000, "nested too deeply"),
    "calls": ("x = f" + "()" * 5_000, "nested too deeply"),
    "sum": ("x = a" + "+a" * 10_000, "nested too deeply"),
    "lambdas": ("x = " + "lambda:" * 10_000 + "1", "nested too deeply"),
    "branches": ("if a:0\n" + "elif a:0\n" * 2_950, "nested too deeply"),
    "indented": ("".join(" " * depth + "if a:\n" for depth in range(200)), "too many levels of indentation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_refused(write, case):
    text, message = REFUSED[case]
    with pytest.raises(UnservableFile, match=message):
        pythonmodel.read(write(text))


def test_only_so_much_of_a_file_is_read(tmp_path):
    path = tmp_path / "model.py"
    with path.open("wb") as file:
        file.truncate(10 << 30)  # a hole: ten gigabytes that take no room
    with pytest.raises(UnservableFile, match="is longer than"):
        pythonmodel.read(path)


def test_nothing_of_it_runs(write, tmp_path):
    path = write(f"open({str(tmp_path / 'ran')!r}, 'w')\n{CLASS}{TELLS}")
    assert pythonmodel.read(path).describes is True
    assert not (tmp_path / "ran").exists()
