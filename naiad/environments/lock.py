"""The lock of an environment: every package with its version and the hashes of its files, and the digest of that."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from naiad.environments.commands import Tools, places, uv
from naiad.environments.interpreters import Interpreter
from naiad.environments.specification import Specification, name_of, requirement_lines

_PINNED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")


@dataclass(frozen=True, slots=True)
class Package:
    """One package of a lock."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Lock:
    """The text of a lock file; equal texts are equal environments."""

    text: str

    @property
    def digest(self) -> str:
        """Names the content (SHA-256, hexadecimal)."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def packages(self) -> list[Package]:
        """What it pins, in the file's order."""
        found = (_PINNED.match(line) for _, line in requirement_lines(self.text))
        return [Package(match[1].lower(), match[2]) for match in found if match]


def with_numpy(requirements: str) -> str:
    """The requirements, numpy among them: tensors reach every worker as numpy arrays."""
    names = {name_of(line) for _, line in requirement_lines(requirements)}
    return requirements if "numpy" in names else f"{requirements.rstrip()}\nnumpy\n".lstrip("\n")


def resolve(requirements: str, specification: Specification, interpreter: Interpreter, tools: Tools) -> Lock:
    """Solves requirements for an interpreter; raises `BuildFailed` with the resolver's words."""
    arguments = ["pip", "compile", "-", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    arguments += ["--python", str(interpreter.path), "--python-version", interpreter.version]
    arguments += [*places(specification, offline=tools.offline)]
    # No index or folder is written into the lock: its digest says what is installed, not where it came from.
    text = uv("resolving", arguments, tools, text=requirements)
    return Lock(text)
