"""A `model.py` with a PyTorch module's class: names of its `forward`, from the syntax tree; nothing is executed."""

from __future__ import annotations

import ast
from pathlib import Path

from naiad.errors import UnservableFile
from naiad.signature import source
from naiad.signature.model import Signature, TensorSignature


def read_class(path: Path) -> Signature:
    """The arguments of the one class with a `forward`, none of a file that is too long; raises `UnservableFile`.

    Whether it is a subclass of `torch.nn.Module` is known when it is loaded: its bases may be imported.
    """
    text = source.read(path)
    if text is None and path.stat().st_size > source.MAX_BYTES:
        raise _refused(path, f"is longer than {source.MAX_BYTES} bytes", "keep data in files of its own beside it")
    if text is None:
        return Signature(format="PyTorch class", backend="pytorch", inputs=())
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        cause = error.msg if isinstance(error, SyntaxError) else str(error)
        raise _refused(
            path, f"is no Python source{line}: {cause[:200]}", "correct it; Python itself reads it"
        ) from error
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    forwards = {node.name: method for node in classes if (method := _forward(node)) is not None}
    if len(forwards) == 1:
        inputs = tuple(
            TensorSignature(name=name, type="Tensor", optional=optional)
            for name, optional in _arguments(next(iter(forwards.values())).args)
        )
        return Signature(format="PyTorch class", backend="pytorch", inputs=inputs)
    if forwards:
        raise _refused(
            path,
            f"has the modules {', '.join(sorted(forwards))}; expected one",
            "keep the model's class in it and move the others to a file beside it, which it imports",
        )
    return Signature(format="PyTorch class", backend="pytorch", inputs=())


def _arguments(arguments: ast.arguments) -> list[tuple[str, bool]]:
    """(name, whether it has a default) of each argument but the module itself."""
    places = [*arguments.posonlyargs, *arguments.args]
    first = len(places) - len(arguments.defaults)
    found = [(argument.arg, at >= first) for at, argument in enumerate(places)][1:]
    defaults = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return found + [(argument.arg, default is not None) for argument, default in defaults]


def _forward(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "forward"), None)


def _refused(path: Path, what: str, fix: str) -> UnservableFile:
    return UnservableFile(f"'{path.name}' {what}", fix, kind="source", code="NOT_A_MODEL")
