"""Which Pythons exist on this machine, and which of them a wish means: nothing is ever downloaded."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from naiad.environments.errors import WrongSpecification
from naiad.environments.specification import OLDEST

_NAME = re.compile(r"python3\.\d{1,2}", re.ASCII)
_QUESTION = "import platform, sys; print(platform.python_version(), sys.implementation.name)"
_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, order=True)
class Interpreter:
    """A Python that is there."""

    version: str
    path: Path


def own() -> Interpreter:
    """The Python that Naiad runs on, outside of any virtual environment."""
    base = getattr(sys, "_base_executable", "") or sys.executable
    return Interpreter(platform.python_version(), Path(base))


def installed() -> list[Interpreter]:
    """Every CPython of this machine that can run a worker, Naiad's own first, then newest first."""
    mine = own()
    paths = {path.resolve(): path for path in _candidates()}
    paths.pop(mine.path.resolve(), None)
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(version_of, paths.values()))
    others = [Interpreter(version, path) for path, version in zip(paths.values(), versions, strict=True) if version]
    usable = [other for other in others if parts(other.version) >= OLDEST]
    return [mine, *sorted(usable, key=lambda found: parts(found.version), reverse=True)]


def find(wanted: str) -> Interpreter:
    """The interpreter of a version, or at a path; raises `WrongSpecification` that lists what there is."""
    if "/" in wanted:
        version = version_of(Path(wanted))
        if not version:
            raise WrongSpecification("python", f"'{wanted}' is not a Python that runs")
        return Interpreter(version, Path(wanted))
    mine = own()
    if not wanted or fits(mine.version, wanted):
        return mine
    there = installed()
    for interpreter in there:
        if fits(interpreter.version, wanted):
            return interpreter
    shown = ", ".join(dict.fromkeys(found.version for found in there))
    raise WrongSpecification("python", f"this machine has no Python {wanted}; it has {shown}")


def fits(version: str, wanted: str) -> bool:
    """Whether `3.12.3` is what `3.12` or `3.12.3` asks for."""
    return version == wanted or version.startswith(f"{wanted}.")


def parts(version: str) -> tuple[int, ...]:
    """The numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def version_of(path: Path) -> str:
    """What an interpreter says of itself; "" if it does not run or is no CPython."""
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", _QUESTION],
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return ""
    words = done.stdout.decode("utf-8", "replace").split()
    return words[0] if done.returncode == 0 and len(words) == 2 and words[1] == "cpython" else ""


def _candidates() -> Iterable[Path]:
    home = Path.home()
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield from _in(Path(folder))
    for root in (home / ".pyenv" / "versions", home / ".local" / "share" / "uv" / "python"):
        with contextlib.suppress(OSError):
            for version in sorted(root.iterdir()):
                yield from _in(version / "bin")


def _in(folder: Path) -> Iterable[Path]:
    with contextlib.suppress(OSError):
        # Shims are scripts that choose an interpreter by the folder they are called in: not one that can be relied on.
        yield from (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and folder.name != "shims")
