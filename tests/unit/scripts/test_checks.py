"""The home-made linters find what they are for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts import check_sizes, check_worker


def function_of(lines: int) -> str:
    return "def f():\n" + "    x = 1\n" * (lines - 1)


def test_a_function_at_the_limit_passes_and_one_line_more_does_not() -> None:
    limit = check_sizes.MOST_LINES_OF_A_FUNCTION
    assert list(check_sizes.long_functions(function_of(limit))) == []
    assert list(check_sizes.long_functions(function_of(limit + 1))) == [("f", 1, limit + 1)]


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse("import os.path\ndef f():\n    from torch.nn import Linear\nfrom . import channel\n")
    assert list(check_worker.imported(tree)) == [(1, "os"), (3, "torch")]


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("naiad_worker/main.py", "import numpy, socket, naiad_worker\n", None),
        ("naiad_worker/main.py", "import torch\n", "may not import 'torch'"),
        ("naiad_worker/main.py", "import naiad\n", "may not import 'naiad'"),
        ("naiad_worker/main.py", "import tomllib\n", "may not import 'tomllib'"),
        ("naiad_worker/backends/pytorch.py", "import torch\n", None),
        ("naiad_worker/backends/identity.py", "import torch\n", "may not import 'torch'"),
        ("naiad_worker/main.py", "match 1:\n    case 1:\n        pass\n", "not Python 3.9"),
    ],
)
def test_the_worker_stays_bare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, complaint: str | None
) -> None:
    monkeypatch.setattr(check_worker, "ROOT", tmp_path)
    monkeypatch.setattr(check_worker, "WORKER", tmp_path)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(source)
    found = list(check_worker.complaints())
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1 and complaint in found[0]
