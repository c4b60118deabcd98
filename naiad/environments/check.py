"""Looks at an interpreter before a worker starts under it: does it run, how old is it, does it hold what is needed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from naiad.environments.errors import Unfit
from naiad.environments.interpreters import parts
from naiad.environments.specification import OLDEST

_SECONDS = 60.0
_PACKAGES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# -I leaves out PYTHONPATH and the user's own packages: what is found lies in the environment itself. ctypes and mmap
# are what a worker needs of the standard library and a Python taken from its place may lack.
_QUESTION = """
import ctypes, importlib.util, json, mmap, platform, sys
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
print(json.dumps({"version": platform.python_version(), "prefix": sys.prefix, "missing": missing}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an interpreter says of itself."""

    version: str
    missing: tuple[str, ...]


Start = Callable[[Sequence[str], Mapping[str, str]], tuple[list[str], dict[str, str]]]
"""Makes of a command and its variables those by which it is started."""


def as_it_is(command: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Starts a command with nothing before it."""
    return list(command), dict(environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """How an interpreter is started."""

    environment: Mapping[str, str]
    start: Start = as_it_is


def look(python: Path, modules: Sequence[str], begun: Begun, *, where: str) -> Report:
    """Asks an interpreter; raises `Unfit` where it does not run or is too old. `where` is what messages call it."""
    command, environment = begun.start([str(python), "-I", "-c", _QUESTION, *modules], begun.environment)
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _broken(where, f"it said nothing for {_SECONDS:.0f} s") from None
    except (OSError, ValueError) as error:
        raise _broken(where, getattr(error, "strerror", None) or str(error)) from error
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        report = Report(version=str(answer["version"]), missing=tuple(answer["missing"]))
    except (ValueError, IndexError, KeyError, TypeError):
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _broken(where, words[-1] if words else f"it ended with exit code {done.returncode}") from None
    if parts(report.version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        fix = f"use Python {oldest} or newer"
        raise Unfit("ENV_UNUSABLE", f"{where}: expected Python {oldest} or newer, got {report.version}", fix)
    return report


def require(report: Report, needs: Sequence[str], *, backend: str, where: str) -> None:
    """Raises `Unfit` that names the line to add where numpy or the backend's framework is missing."""
    for module in needs:
        if module in report.missing:
            raise Unfit(
                "ENV_MISSING_BACKEND", f"{where} has no '{module}', which the backend '{backend}' runs on", add(module)
            )
    if "numpy" in report.missing:
        raise Unfit("MISSING_MODULE", f"{where} has no 'numpy', which every worker needs", add("numpy"))


def add(module: str) -> str:
    """The line that brings a module."""
    top = module.partition(".")[0]
    return f"add the line '{_PACKAGES.get(top, top)}' to its requirements and build it again"


def _broken(where: str, cause: str) -> Unfit:
    fix = "build or pack it again on a machine like this one"
    return Unfit("ENV_UNUSABLE", f"{where}: its Python does not run: {cause}", fix)
