"""Holds the sizes: files of at most 500 lines, Python functions of at most 60 (clippy counts Rust's)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES_OF_A_FILE = 500
MOST_LINES_OF_A_FUNCTION = 60
SUFFIXES = {".py", ".pyi", ".rs", ".ts", ".tsx", ".sh"}
GENERATED = {"gen", "target"}


def sources() -> Iterator[Path]:
    """Yield each hand-written source file that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in sorted(set(listed.splitlines())):
        path = ROOT / name
        if path.suffix in SUFFIXES and path.is_file() and not GENERATED & set(Path(name).parts):
            yield path


def long_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, first line and length of each Python function that is too long."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield node.name, node.lineno, lines


def complaints() -> Iterator[str]:
    """Yield one line for each limit that is broken."""
    for path in sources():
        source = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        lines = source.count("\n")
        if lines > MOST_LINES_OF_A_FILE:
            yield f"{name}: {lines} lines, at most {MOST_LINES_OF_A_FILE} are allowed"
        if path.suffix == ".py":
            for function, line, length in long_functions(source):
                yield f"{name}:{line}: '{function}' has {length} lines, at most {MOST_LINES_OF_A_FUNCTION} are allowed"


def main() -> None:
    """Print what is too long and fail if anything is."""
    found = list(complaints())
    print("\n".join(found) or f"sizes: {sum(1 for _ in sources())} files within their limits")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
