"""What the text of a Triton Python model says of its class; nothing of it is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from naiad.errors import UnservableFile
from naiad.signature import source
from naiad.signature.model import Signature

CLASS = "TritonPythonModel"
DESCRIBES = "auto_complete_config"


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonModel:
    """What was read of a file."""

    describes: bool
    """Whether it says itself what it takes; true also where only running it would tell (a class made elsewhere)."""


def read(path: Path) -> PythonModel:
    """The class of the file; raises `UnservableFile` where there is none or the file is no Python."""
    text = source.read(path)
    if text is not None:
        return _of(_tree(path, text), path.name)
    if path.stat().st_size > source.MAX_BYTES:
        what = f"'{path.name}' is longer than {source.MAX_BYTES} bytes"
        raise _refuse(what, "keep data in files of its own beside it")
    return PythonModel(describes=True)


def signature(path: Path) -> Signature:
    """What the file says as a signature: tensors are told by the model itself or by its configuration."""
    return Signature(format="Triton Python model", backend="python", inputs=(), describes=read(path).describes)


def _tree(path: Path, text: bytes) -> ast.Module:
    if not text.strip():
        raise UnservableFile(f"'{path.name}' is empty", "copy the file again", kind="empty", code="EMPTY_FILE")
    if b"\0" in text:
        raise _refuse(f"'{path.name}' is no text (it starts with {text[:8]!r})", "")
    try:
        return ast.parse(text, filename=path.name)
    except SyntaxError as error:
        line = f" line {error.lineno}" if error.lineno else ""
        raise _refuse(f"'{path.name}'{line}: {error.msg}", "") from error
    except ValueError as error:
        raise _refuse(f"'{path.name}' is no Python: {error}", "") from error
    except (RecursionError, MemoryError) as error:
        raise _refuse(f"'{path.name}' is nested too deeply to be read", "keep data in files of its own") from error


def _refuse(what: str, fix: str) -> UnservableFile:
    return UnservableFile(what, fix, kind="python", code="NOT_A_MODEL")


def _of(tree: ast.Module, name: str) -> PythonModel:
    made = _definition(tree)
    if made is None:
        raise _refuse(f"'{name}' has no class {CLASS}", f"write 'class {CLASS}:' with execute(self, requests)")
    if not isinstance(made, ast.ClassDef):
        return PythonModel(describes=True)
    plain = all(isinstance(base, ast.Name) and base.id == "object" for base in made.bases) and not made.keywords
    return PythonModel(describes=DESCRIBES in set(_members(made)) or not plain or bool(made.decorator_list))


def _definition(tree: ast.Module) -> ast.stmt | None:
    """The last statement outside functions and classes that gives the class its name; a star import may do so."""
    found: ast.stmt | None = None
    waiting = list(reversed(tree.body))
    while waiting:
        statement = waiting.pop()
        if CLASS in _names(statement) or ("*" in _names(statement) and found is None):
            found = statement
        if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)]
            waiting += [line for handler in getattr(statement, "handlers", []) for line in handler.body]
    return found


def _names(statement: ast.stmt) -> list[str]:
    """The names that a statement gives a value to, as far as it says them plainly."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


def _members(made: ast.ClassDef) -> Iterator[str]:
    for statement in made.body:
        yield from _names(statement)
