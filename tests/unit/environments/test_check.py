"""What an interpreter says of itself, and what is said of one that cannot run a worker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from naiad.environments.check import Begun, add, look, require
from naiad.environments.errors import Unfit, WrongSpecification
from naiad.environments.interpreters import find, fits, installed, own, version_of


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_good_one():
    report = look(Path(sys.executable), ("numpy", "torchvision_zz"), Begun(environment={}), where="x")
    assert report.version == ".".join(map(str, sys.version_info[:3]))
    assert report.missing == ("torchvision_zz",)


def test_what_is_missing_is_named_with_the_line_to_add():
    report = look(Path(sys.executable), ("sklearn_zz", "numpy_zz"), Begun(environment={}), where="environment 'x'")
    with pytest.raises(Unfit) as caught:
        require(report, ("sklearn_zz",), backend="sklearn", where="environment 'x'")
    assert str(caught.value) == (
        "environment 'x' has no 'sklearn_zz', which the backend 'sklearn' runs on (ENV_MISSING_BACKEND)"
    )
    assert add("sklearn.ensemble").startswith("add the line 'scikit-learn' to its requirements")


def test_pythonpath_does_not_count(tmp_path):
    (tmp_path / "elsewhere_zz.py").touch()
    report = look(Path(sys.executable), ("elsewhere_zz",), Begun(environment={"PYTHONPATH": str(tmp_path)}), where="x")
    assert report.missing == ("elsewhere_zz",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("exit 3", "ended with exit code 3"),
        ("echo libfoo.so.1: not found >&2; exit 127", "libfoo.so.1: not found"),
        ("echo hello", "ended with exit code 0"),
        ("""echo '{"version": "3.8.1", "missing": []}'""", "expected Python 3.9 or newer, got 3.8.1"),
    ],
)
def test_a_broken_one(tmp_path, text, says):
    with pytest.raises(Unfit, match="ENV_UNUSABLE") as caught:
        look(script(tmp_path / "python", text), (), Begun(environment={}), where="x")
    assert says in str(caught.value)


def test_one_that_is_no_program(tmp_path):
    (tmp_path / "python").write_text("x")
    with pytest.raises(Unfit, match="Permission denied"):
        look(tmp_path / "python", (), Begun(environment={}), where="x")


def test_own_is_found_without_a_search():
    assert find("") == own()
    assert find(own().version.rpartition(".")[0]) == own()
    assert installed()[0] == own()
    assert version_of(own().path) == own().version


def test_a_missing_one_lists_what_there_is():
    with pytest.raises(WrongSpecification, match=r"this machine has no Python 3\.99; it has ") as caught:
        find("3.99")
    assert own().version in str(caught.value)


def test_a_path_is_taken(tmp_path):
    assert find(sys.executable).version == own().version
    with pytest.raises(WrongSpecification, match="is not a Python that runs"):
        find(str(script(tmp_path / "python3.12", "exit 1")))


def test_versions():
    assert fits("3.12.3", "3.12")
    assert fits("3.12.3", "3.12.3")
    assert not fits("3.12.3", "3.1")
