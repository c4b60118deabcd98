"""Builds the environment that a lock describes: in a scratch folder, renamed when it is complete."""

from __future__ import annotations

import shutil
from pathlib import Path

from naiad.environments.commands import Tools, places, uv
from naiad.environments.interpreters import Interpreter
from naiad.environments.lock import Lock
from naiad.environments.specification import Specification


def build(
    specification: Specification, lock: Lock, interpreter: Interpreter, *, destination: Path, tools: Tools
) -> None:
    """Makes the virtual environment at `destination`, which is there whole or not at all; raises `BuildFailed`.

    Every file is checked against the lock's hashes and compiled to bytecode: where bytecode is missing each start of a
    worker pays for it.
    """
    scratch = destination.with_name(f"{destination.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    venv = ["venv", "--quiet", "--relocatable", "--no-project", "--no-config", "--no-python-downloads"]
    try:
        uv("making the virtual environment", [*venv, "--python", str(interpreter.path), str(scratch)], tools)
        install(specification, lock, python=scratch / "bin" / "python", tools=tools)
        scratch.rename(destination)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def install(specification: Specification, lock: Lock, *, python: Path, tools: Tools) -> None:
    """Installs what a lock pins under an interpreter; raises `BuildFailed`."""
    file = tools.log.with_name("requirements.lock")
    file.write_text(lock.text, "utf-8")
    arguments = ["pip", "install", "--python", str(python), "--require-hashes", "--compile-bytecode", "--no-deps"]
    arguments += ["--requirement", str(file), *places(specification, offline=tools.offline)]
    uv("installing", arguments, tools, cwd=python.parents[2])
