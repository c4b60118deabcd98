"""Finds the model in what the user named: the file, the version directory, the model directory or the repository.

A TensorFlow SavedModel is a folder, and so is an ONNX file with its weights beside it; each counts as one file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from naiad.control.diagnosis import Broken

CONFIGURATION = "config.pbtxt"
SAVED_MODEL = "saved_model.pb"
"""What makes a folder a TensorFlow SavedModel."""
ONNX = "model.onnx"
"""What makes a folder whose name ends like a file of that format an ONNX model with its weights."""
_SUFFIXES = {".pth": ".pt", ".ts": ".pt", ".torchscript": ".pt"}
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One version of a model: its number, its files, its configuration if it has one."""

    version: int
    content: Path
    """A version directory, or a single model without one."""
    name: str = ""
    """What a single model is called in a version directory; "" where `content` is a version directory."""
    configuration: Path | None = None
    ignored: tuple[str, ...] = ()


def find(path: Path) -> Layout:
    """The model at `path`; raises `Broken` with what is ambiguous or missing."""
    if path.is_file():
        return _of_file(path)
    if _is_version(path):
        return _of_version(path)
    if _name_of_folder(path):
        return _of_folder(path)
    if _versions(path):
        return _of_model(path)
    if (path / CONFIGURATION).is_file() or _model_files(path):
        raise _without_version(path)
    models = sorted(child for child in _folders(path) if _versions(child))
    if len(models) > 1:
        names = ", ".join(f"'{model.name}'" for model in models)
        raise Broken(
            "PATH_AMBIGUOUS",
            f"'{path.name}' holds several models: {names}",
            fix=f"name one of them, as in {path.name}/{models[0].name}",
        )
    if not models:
        raise Broken(
            "PATH_NOT_FOUND",
            f"'{path.name}' holds no model: no version directory such as '1' and no model file",
            fix="name a model file, or a folder laid out as <model>/<version>/<file>",
        )
    return _of_model(models[0])


def _of_file(path: Path) -> Layout:
    if path.name == CONFIGURATION:
        return find(path.parent)
    if _is_version(path.parent):
        return _of_version(path.parent)
    if path.name in (SAVED_MODEL, ONNX) and _name_of_folder(path.parent):
        return _of_folder(path.parent)
    suffix = path.suffix.lower()
    return Layout(version=1, content=path, name=f"model{_SUFFIXES.get(suffix, suffix)}")


def _of_folder(path: Path) -> Layout:
    if _is_version(path.parent):
        return _of_version(path.parent)
    return Layout(version=1, content=path, name=_name_of_folder(path))


def _name_of_folder(path: Path) -> str:
    """What a folder that is one model is called in a version directory; "" for any other folder."""
    if (path / SAVED_MODEL).is_file():
        return "model.savedmodel"
    return ONNX if path.suffix == ".onnx" and (path / ONNX).is_file() else ""


def _of_version(path: Path) -> Layout:
    configuration = path.parent / CONFIGURATION
    return Layout(
        version=int(path.name), content=path, configuration=configuration if configuration.is_file() else None
    )


def _of_model(path: Path) -> Layout:
    versions = _versions(path)
    newest = max(versions, key=lambda version: int(version.name))
    found = _of_version(newest)
    ignored = tuple(sorted(child.name for child in _folders(path) if child not in versions))
    return Layout(version=found.version, content=newest, configuration=found.configuration, ignored=ignored)


def _without_version(path: Path) -> Broken:
    files = _model_files(path)
    example = files[0].name if files else "model.pt"
    return Broken(
        "LAYOUT_NO_VERSION",
        f"'{path.name}' is a model directory without a version directory (a positive number such as '1')",
        fix=f"serve {path.name}/{example} as version 1 by naming that file, or move it to {path.name}/1/{example}",
    )


def _folders(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")]


def _versions(path: Path) -> list[Path]:
    return [child for child in _folders(path) if _is_version(child)]


def _is_version(path: Path) -> bool:
    return path.is_dir() and _VERSION.fullmatch(path.name) is not None


def _model_files(path: Path) -> list[Path]:
    return sorted(
        child for child in path.iterdir() if child.stem == "model" and (child.is_file() or _name_of_folder(child))
    )
