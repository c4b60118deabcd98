"""Scans repositories into models and versions; what is wrong with a directory is said, not skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from naiad.repository.paths import is_model_name, shown
from naiad.repository.versions import numbered

MODEL_FILES = (
    "model.pt", "model.onnx", "model.plan", "model.pt2", "model.py", "model.xml", "model.savedmodel",
    "model.skops", "model.joblib", "model.pkl",
)  # fmt: skip


TWICE = "model appears in two or more repositories"


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """One model directory."""

    name: str
    path: Path
    versions: tuple[int, ...]
    problem: str
    """Why it cannot be loaded, or ""."""


def scan(repositories: Sequence[Path]) -> Mapping[str, ModelDirectory]:
    """Every model of the repositories by name; a repository that cannot be read raises `OSError`."""
    found: dict[str, ModelDirectory] = {}
    for repository in repositories:
        for entry in sorted(repository.iterdir()):
            if not entry.is_dir() or entry.name.startswith("."):
                continue
            model = look_at(entry)
            found[model.name] = _twice(model) if model.name in found else model
    return found


def locate(name: str, repositories: Sequence[Path]) -> ModelDirectory | None:
    """The directory of one model; None if no repository has it."""
    paths = [repository / name for repository in repositories if (repository / name).is_dir()]
    if not paths:
        return None
    model = look_at(paths[0])
    return _twice(model) if len(paths) > 1 else model


def _twice(model: ModelDirectory) -> ModelDirectory:
    return ModelDirectory(model.name, model.path, (), TWICE)


def look_at(directory: Path) -> ModelDirectory:
    """One model directory and what is wrong with it."""
    name = directory.name
    if not is_model_name(name):
        meant = name.strip()
        hint = f"; did you mean '{meant}'?" if meant != name else ""
        problem = f"the directory name '{shown(name)}' has characters that a model name may not have{hint}"
        return ModelDirectory(name, directory, (), problem)
    try:
        versions, ignored = numbered(directory)
    except OSError as error:  # one directory that cannot be read must not hide the others
        return ModelDirectory(name, directory, (), f"model '{name}' cannot be read: {error.strerror}")
    problem = ""
    if not versions:
        loose = [file for file in MODEL_FILES if (directory / file).exists()]
        if loose:
            problem = (
                f"'{name}/{loose[0]}' lies directly in the model's directory (LAYOUT_NO_VERSION); "
                f"move it to '{name}/1/{loose[0]}'"
            )
        else:
            problem = f"model '{name}' has no version folder"
            if ignored:
                problem += f" (ignored: {', '.join(map(shown, ignored))}; a version is a number without leading zeros)"
            problem += f" (LAYOUT_NO_VERSION); put the model file into '{name}/1/'"
    return ModelDirectory(name, directory, tuple(versions), problem)
