"""Which backend runs a model: what the configuration says, else the file in its version folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path, PurePath
from typing import Any

from naiad.backends import identity, onnxruntime, python, pytorch, repeat, sklearn, square, tensorflow
from naiad.backends.base import Backend
from naiad.errors import ConfigError

BACKENDS = {
    backend.name: backend
    for backend in (
        pytorch.BACKEND,
        onnxruntime.BACKEND,
        tensorflow.BACKEND,
        sklearn.BACKEND,
        python.BACKEND,
        identity.BACKEND,
        repeat.BACKEND,
        square.BACKEND,
    )
}
_PLAN = ("TensorRT plans are not served", "a plan belongs to one GPU, serve the ONNX file that it was made from")
LATER = {
    "openvino": ("OpenVINO models come with a later version of Naiad", "serve the ONNX file or the SavedModel"),
    "tensorrt": _PLAN,
    "tensorrt_plan": _PLAN,
    "ensemble": ("ensembles come with a later version of Naiad", "call their models one by one"),
    "dali": ("DALI pipelines come with a later version of Naiad", "do their work in a Python model"),
    "fil": ("tree models come with a later version of Naiad", "export the model as ONNX, which is served today"),
}
"""Backends that Triton has: what becomes of them, and what to do today."""
VLLM = "serve the model's Hugging Face folder with 'engine: vllm', which comes with a later version of Naiad"
GRAPHDEF = "tensorflow_graphdef"
# Files in the order in which Triton looks for them, then those that Triton does not know.
_FILES = (
    ("model.savedmodel", "tensorflow"),
    ("model.plan", "tensorrt"),
    ("model.onnx", "onnxruntime"),
    ("model.xml", "openvino"),
    ("model.pt", "pytorch"),
    ("model.pt2", "pytorch"),
    ("model.py", "python"),
    ("model.keras", "tensorflow"),
    ("saved_model.pb", "tensorflow"),
    ("model.graphdef", GRAPHDEF),
    ("model.skops", "sklearn"),
    ("model.joblib", "sklearn"),
    ("model.pkl", "sklearn"),
)
_SUFFIXES = {PurePath(file).suffix: kind for file, kind in _FILES if file not in ("model.py", "saved_model.pb")}
_SUFFIXES[".pth"] = "pytorch"


def choose(message: Any, version_directory: Path, *, name: str) -> Backend:
    """The backend of a model, its first filename the one that is there; raises `ConfigError` that names what was found.

    Where the configuration names none the file decides: the one that it names, one of the usual names, else the suffix
    of a folder's only entry.
    """
    if message.backend and message.platform:
        return _with_file(_agreed(message.backend, message.platform), version_directory)
    asked = message.backend or message.platform
    if asked:
        backend = _named(asked, f"{'backend' if message.backend else 'platform'} '{asked}'")
        return _with_file(backend, version_directory)
    for file, kind in (*_of_name(message.default_model_filename), *_FILES, *_only_entry(version_directory)):
        if os.path.exists(version_directory / file):  # unlike Path.exists, no name raises
            return _first(_named(kind, f"'{file}'"), file)
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix in BACKENDS:
        return BACKENDS[suffix]
    there = sorted(entry.name for entry in version_directory.iterdir()) if version_directory.is_dir() else []
    holds = f"holds {', '.join(there[:5])}" if there else "is empty"
    raise ConfigError(
        f"version folder '{version_directory.name}' {holds} (PATH_NOT_FOUND); "
        "expected a model file such as 'model.pt', or 'backend' in config.pbtxt"
    )


def alone(name: str, file: PurePath) -> Backend:
    """The backend of this name for a model outside a repository, its first filename the one of this suffix."""
    backend = BACKENDS[name]
    same = next((other for other in backend.filenames if PurePath(other).suffix == file.suffix.lower()), None)
    return _first(backend, same) if same else backend


def holding(name: str, file: str) -> Backend:
    """The backend of this name, its first filename `file`, whatever that is called."""
    return _first(BACKENDS[name], file)


def _of_name(file: str) -> tuple[tuple[str, str], ...]:
    """A file that the configuration names and the kind that its name tells; nothing where either is missing."""
    kind = dict(_FILES).get(file) or _SUFFIXES.get(PurePath(file).suffix.lower())
    return ((file, kind),) if kind else ()


def _only_entry(folder: Path) -> tuple[tuple[str, str], ...]:
    """A folder's only entry and the kind that its suffix names; nothing where either is missing."""
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
    return _of_name(names[0]) if len(names) == 1 else ()


def _with_file(backend: Backend, folder: Path) -> Backend:
    """The backend with the first of its filenames that the folder holds, else with the only entry of its kind."""
    files = (backend.first, *backend.filenames) if backend.first else backend.filenames
    there = next((file for file in files if (folder / file).exists()), None)
    if there is None:
        there = next((file for file, kind in _only_entry(folder) if kind == backend.name), None)
    return _first(backend, there) if there else backend


def _first(backend: Backend, file: str) -> Backend:
    return dataclasses.replace(backend, filenames=(file, *(other for other in backend.filenames if other != file)))


def _agreed(backend: str, platform: str) -> Backend:
    """The backend where both are written: `pytorch` with `torch_aoti` is not TorchScript."""
    named = _named(backend, f"backend '{backend}'")
    other = _named(platform, f"platform '{platform}'")
    if other is not named:
        raise ConfigError(f"platform '{platform}' belongs to backend '{other.name}', but backend says '{backend}'")
    return named


def _named(asked: str, what: str) -> Backend:
    for backend in BACKENDS.values():
        if asked == backend.name or asked in backend.platforms:
            return backend
    if asked == "vllm":
        raise ConfigError(f"{what}: language models are served by vLLM itself (VLLM_BACKEND_DEPRECATED); {VLLM}")
    if asked == GRAPHDEF:
        raise ConfigError(f"{what}: frozen graphs are not served (FORMAT_NOT_SERVED); save the model as a SavedModel")
    if asked in LATER:
        late, instead = LATER[asked]
        raise ConfigError(f"{what}: {late} (FORMAT_NOT_SERVED); {instead}")
    raise ConfigError(f"{what}: unknown; {_known()} work today")


def _known() -> str:
    *names, last = (f"'{name}'" for name in sorted(BACKENDS))
    return f"{', '.join(names)} and {last}"
