"""A `model.py` with a PyTorch module's class: names of its `forward`, from the syntax tree; nothing is executed."""

from __future__ import annotations

import ast
from pathlib import Path

from naiad.errors import UnservableFile
from naiad.signature.model import Signature, TensorSignature

MAX_SOURCE = 1 << 20


def read_class(path: Path) -> Signature:
    """The arguments of the one class with a `forward`; raises `UnservableFile`.

    Whether it is a subclass of `torch.nn.Module` is known when it is loaded: its bases may be imported.
    """
    with path.open("rb") as file:
        source = file.read(MAX_SOURCE + 1)
    if len(source) > MAX_SOURCE:
        raise _refused(path, f"is larger than {MAX_SOURCE} bytes", "import its parts from files beside it")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        raise _refused(
            path, f"is no Python source{line}: {text[:200]}", "correct it; Python itself reads it"
        ) from error
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    forwards = {node.name: method for node in classes if (method := _forward(node)) is not None}
    if len(forwards) == 1:
        arguments = next(iter(forwards.values())).args
        names = [*arguments.posonlyargs, *arguments.args][1:] + arguments.kwonlyargs
        inputs = tuple(TensorSignature(name=argument.arg, type="Tensor") for argument in names)
        return Signature(format="PyTorch class", backend="pytorch", inputs=inputs)
    if forwards:
        raise _refused(
            path,
            f"has the modules {', '.join(sorted(forwards))}; expected one",
            "keep the model's class in it and move the others to a file beside it, which it imports",
        )
    return Signature(format="PyTorch class", backend="pytorch", inputs=())


def _forward(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "forward"), None)


def _refused(path: Path, what: str, fix: str) -> UnservableFile:
    return UnservableFile(f"'{path.name}' {what}", fix, kind="source", code="NOT_A_MODEL")
