"""Finds the class of a Triton Python model, and says what is wrong where its code fails at loading."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from naiad_worker.backends import LoadFailure, LoadSpec

CLASS = "TritonPythonModel"
_KINDS = {"cpu": "CPU", "cuda": "GPU", "model": "MODEL"}
# Modules that have another name than what one installs.
_PACKAGES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def model_class(spec: LoadSpec) -> Any:
    """The class in the model's file; raises `LoadFailure`.

    The version folder and the model's are on the path, behind everything else, and the file is imported as a module of
    the package that the version folder is: it finds its neighbours by plain and by relative imports.
    """
    name, extension = os.path.splitext(spec.file)
    if extension != ".py":
        raise LoadFailure(f"expected a file whose name ends in '.py', got '{spec.file}'")
    version_folder = os.path.abspath(spec.directory)
    model_folder, package = os.path.split(version_folder)
    for folder in (version_folder, model_folder):
        if folder not in sys.path:
            sys.path.append(folder)
    # Programs that read their arguments where they are imported find none, as in Triton, and not the worker's.
    sys.argv = [""]
    # What it writes beside the model would be a change of the repository.
    sys.dont_write_bytecode = True
    import triton_python_backend_utils

    triton_python_backend_utils._model_directory = version_folder
    with told(spec, "importing it"):
        module = importlib.import_module(".".join([package, *name.split(os.sep)]))
    cls = getattr(module, CLASS, None)
    if cls is None:
        raise LoadFailure(f"'{spec.file}' has no class {CLASS}", f"name the model's class {CLASS}")
    return cls


@contextlib.contextmanager
def told(spec: LoadSpec, what: str) -> Iterator[None]:
    """Turns what the model's code raises into a `LoadFailure` that says where; what is no `Exception` too."""
    try:
        yield
    except LoadFailure:
        raise
    except ModuleNotFoundError as error:
        raise _missing(spec, error) from error
    except SyntaxError as error:
        file = os.path.basename(error.filename or spec.file)
        raise LoadFailure(f"'{file}' line {error.lineno}: {error.msg}") from error
    except BaseException as error:
        line = _line(spec, error)
        where = f" (line {line})" if line else ""
        text = " ".join(str(error).split())[:500]
        raise LoadFailure(f"'{spec.file}': {what} fails with {type(error).__name__}: {text}{where}") from error


def _missing(spec: LoadSpec, error: ModuleNotFoundError) -> LoadFailure:
    module = (error.name or "").split(".")[0]
    line = _line(spec, error)
    where = f" line {line}" if line else ""
    package = _PACKAGES.get(module, module)
    return LoadFailure(
        f"'{spec.file}'{where}: No module named '{error.name}' (MISSING_MODULE)",
        f"add the line '{package}' to the requirements of the model's environment, or: pip install {package}",
    )


def _line(spec: LoadSpec, error: BaseException) -> int | None:
    """The last line of the model's own file that an error came through."""
    path = os.path.join(os.path.abspath(spec.directory), spec.file)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines else None


def instance_name(spec: LoadSpec) -> str:
    """The name of this instance: its group's with its number in the group."""
    number = spec.instance
    for group in spec.config.get("instance_group", []):
        size = int(group.get("count", 1)) * max(1, len(group.get("gpus", [])))
        if number < size:
            return f"{group.get('name') or spec.model}_{number}"
        number -= size
    return f"{spec.model}_{spec.instance}"


def arguments(spec: LoadSpec, instance: str) -> dict[str, str]:
    """What `initialize` is told; all of it text."""
    return {
        "model_config": json.dumps(spec.config),
        "model_instance_kind": _KINDS[spec.device["kind"]],
        "model_instance_name": instance,
        "model_instance_device_id": str(spec.device.get("id", 0)),
        "model_repository": os.path.dirname(os.path.abspath(spec.directory)),
        "model_version": str(spec.version),
        "model_name": spec.model,
    }
