"""Scanning repositories: a directory that cannot be served is reported with what to do, never skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from naiad.repository.index import look_at, scan


def tree(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return root


def test_every_model_of_every_repository_is_found(tmp_path):
    tree(tmp_path, "one/a/1/model.pt", "one/a/10/model.pt", "one/a/9/model.pt", "two/b/1/model.pt", "two/README.md")
    tree(tmp_path, "two/.git/1/model.pt")
    found = scan([tmp_path / "one", tmp_path / "two"])
    assert {name: (model.versions, model.problem) for name, model in found.items()} == {
        "a": ((1, 9, 10), ""),
        "b": ((1,), ""),
    }


def test_a_model_in_two_repositories_is_served_by_neither(tmp_path):
    tree(tmp_path, "one/a/1/model.pt", "two/a/2/model.pt", "three/a/3/model.pt")
    (model,) = scan([tmp_path / "one", tmp_path / "two", tmp_path / "three"]).values()
    assert (model.versions, model.problem) == ((), "model appears in two or more repositories")


PROBLEMS = {
    "a lone file": (
        "m", ["model.pt", "config.pbtxt"],
        "'m/model.pt' lies directly in the model's directory (LAYOUT_NO_VERSION); move it to 'm/1/model.pt'",
    ),
    "nothing": (
        "m", ["config.pbtxt"], "model 'm' has no version folder (LAYOUT_NO_VERSION); put the model file into 'm/1/'"
    ),
    "no number": (
        "m", ["v1/model.pt", "01/model.pt", "0/model.pt"],
        "model 'm' has no version folder (ignored: 0, 01, v1; a version is a number without leading zeros) "
        "(LAYOUT_NO_VERSION); put the model file into 'm/1/'",
    ),
    "trailing blank": (
        "m ", ["1/model.pt"],
        "the directory name 'm ' has characters that a model name may not have; did you mean 'm'?",
    ),
    "leading blank": (
        " m", ["1/model.pt"],
        "the directory name ' m' has characters that a model name may not have; did you mean 'm'?",
    ),
    "newline": (
        "m\n", ["1/model.pt"],
        "the directory name 'm\\n' has characters that a model name may not have; did you mean 'm'?",
    ),
    "foreign letters": (
        "modèle", ["1/model.pt"], "the directory name 'modèle' has characters that a model name may not have"
    ),
    "a command": ("$(id)", ["1/model.pt"], "the directory name '$(id)' has characters that a model name may not have"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "files", "problem"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_is_wrong_with_a_directory_is_said(tmp_path, name, files, problem):
    tree(tmp_path / name, *files)
    model = look_at(tmp_path / name)
    assert (model.name, model.versions, model.problem) == (name, (), problem)


def test_a_version_that_is_written_in_other_digits_is_none(tmp_path):
    tree(tmp_path / "m", "1/model.pt", "٢/model.pt", "1.0/model.pt", "-1/model.pt", "²/model.pt")
    assert look_at(tmp_path / "m").versions == (1,)


def test_one_directory_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    tree(tmp_path, "a/1/model.pt", "b/1/model.pt")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    assert set(scan([tmp_path])) == {"a", "b"}


def test_a_directory_that_vanishes_is_a_problem_of_that_model(tmp_path):
    model = look_at(tmp_path / "m")
    assert (model.versions, model.problem) == ((), "model 'm' cannot be read: No such file or directory")


def test_a_repository_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        scan([tmp_path / "none"])
