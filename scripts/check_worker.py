"""Holds the worker to Python 3.9 syntax and to imports of the standard library, numpy, itself and its framework."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "naiad" / "_worker"
OLDEST = (3, 9)
YOUNGER_THAN_OLDEST = {"tomllib"}
ITSELF = {"naiad_worker", "triton_python_backend_utils"}
# Each backend's own framework, importable in that backend's file or folder alone.
FRAMEWORKS = {
    "onnxruntime": {"onnxruntime"},
    "pytorch": {"torch"},
    "pytorch_export": {"torch"},
    "sklearn": {"joblib", "skops", "sklearn", "threadpoolctl"},
    "tensorflow": {"keras", "tensorflow"},
    "_torch_aoti": {"torch"},
    "_torch_class": {"torch"},
    "_torch_export": {"torch"},
    "_torch_guess": {"torch"},
    "_torch_script": {"torch"},
}


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and top-level name of each absolute import, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def allowed_in(path: Path) -> set[str]:
    """Return the top-level modules that one file of the worker may import."""
    allowed = (set(sys.stdlib_module_names) - YOUNGER_THAN_OLDEST) | {"numpy"} | ITSELF
    parts = path.relative_to(WORKER).with_suffix("").parts
    if "backends" in parts:
        for part in parts:
            allowed |= FRAMEWORKS.get(part, set())
    return allowed


def complaints() -> Iterator[str]:
    """Yield one line for each file or import that an old or bare interpreter could not run."""
    for path in sorted(WORKER.rglob("*.py")):
        name = path.relative_to(ROOT)
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)
        except SyntaxError as error:
            yield f"{name}:{error.lineno}: not Python {OLDEST[0]}.{OLDEST[1]}: {error.msg}"
            continue
        allowed = allowed_in(path)
        for line, module in imported(tree):
            if module not in allowed:
                yield f"{name}:{line}: the worker may not import '{module}'"


def main() -> None:
    """Print what breaks the contract and fail if anything does."""
    found = list(complaints())
    files = len(list(WORKER.rglob("*.py")))
    print("\n".join(found) or f"worker: {files} files stay with Python 3.9, the standard library and numpy")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
