"""Loads programs of torch.export."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

from naiad_worker.backends import LoadFailure
from naiad_worker.backends._torch_common import Place, Runner, loading

_REFUSED = "Weights only load failed"
"""How torch's own unpickler begins what it says of a name that it does not know."""
_PLAIN = "export the model with tensors, numbers, tuples and dictionaries as its arguments and constants"
_FIX = "export the model again with the torch version that serves it"


_IMPORTS = (
    "torch.export.pt2_archive._package",
    "torch._export.serde.serialize",
    "torch.export._trace",
    "torch.export._unlift",
    "torch._inductor.sizevars",
    "sympy.tensor.tensor",
)


def warm() -> None:
    """Imports what `torch.export.load` imports at its first call, which takes seconds."""
    for name in _IMPORTS:
        with contextlib.suppress(ImportError):  # another torch has them elsewhere, and then imports them later
            importlib.import_module(name)


def load(place: Place) -> Runner:
    """Raises `LoadFailure` for what torch does not take as an exported program."""
    import torch

    with loading(place.file, _FIX), _tensors_only(place.file), open(place.path, "rb") as file:
        program = torch.export.load(file)
    if place.device is not None and _elsewhere(program, place.device):
        from torch.export.passes import move_to_device_pass

        with loading(place.file):
            program = move_to_device_pass(program, place.device)
    module = program.module()
    spec = program.call_spec.in_spec
    leaves = _leaves(program)
    places = [at for at, leaf in enumerate(leaves) if leaf is _TENSOR]
    argument_names = program.module_call_graph[0].signature.forward_arg_names or []
    paths = named_leaves(spec, argument_names)
    run = _flat(program, module) if hasattr(module, "_guards_fn") else _nested(program, module)

    def call(tensors: list[Any]) -> Any:
        if len(tensors) != len(places):
            raise ValueError(f"the program takes {len(places)} tensors, got {len(tensors)}")
        values = list(leaves)
        for at, tensor in zip(places, tensors):
            values[at] = tensor
        return run(values)

    names = [paths[at][0] for at in places]
    aliases = {paths[at][1]: number for number, at in enumerate(places)}
    return Runner(call, names, aliases)


@contextlib.contextmanager
def _tensors_only(file: str) -> Iterator[None]:
    """While torch reads an archive: pickles in it may hold tensors and plain values, and run nothing.

    `torch.export.load` itself would fall back to unpickling anything, for weights, constants and the sample inputs.
    """
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    try:
        package = importlib.import_module("torch.export.pt2_archive._package")
    except ModuleNotFoundError as error:
        version = importlib.import_module("torch").__version__
        raise LoadFailure(
            f"torch {version} does not read '{file}': programs of torch.export need torch 2.8 or later",
            "serve it in an environment with a later torch",
            "FORMAT_NOT_SERVED",
        ) from error
    before, pickles = os.environ.get(name), getattr(package, "pickle", None)
    os.environ[name] = "1"
    guard = package.pickle = _NoPickles()
    try:
        yield
    except LoadFailure:
        raise
    except Exception as error:  # torch hides what was raised first in errors of several classes
        if not guard.met and _REFUSED not in str(error):
            raise
        raise LoadFailure(f"'{file}' holds a pickle that could run code", _PLAIN, "UNSAFE_PICKLE") from error
    finally:
        package.pickle = pickles
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _NoPickles:
    """Stands where torch would unpickle an object of any class."""

    met = False

    def loads(self, _data: bytes) -> None:
        self.met = True
        raise RuntimeError(_REFUSED)


_TENSOR = object()


def _leaves(program: Any) -> list[Any]:
    """The leaves of the arguments in order: `_TENSOR`, or the constant that the program was exported with."""
    from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

    leaves = []
    for spec in program.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, TensorArgument):
            leaves.append(_TENSOR)
        elif isinstance(spec.arg, ConstantArgument):
            leaves.append(spec.arg.value)
        else:
            kind = type(spec.arg).__name__
            raise LoadFailure(
                f"argument '{spec.arg.name}' of the program is a {kind}, which is no tensor",
                "export the model with a tensor in its place, or with a fixed value",
            )
    return leaves


def _elsewhere(program: Any, device: Any) -> bool:
    return any(tensor.device.type != device.type for tensor in program.state_dict.values())


def _flat(program: Any, module: Any) -> Any:
    """The program as a function of its leaves.

    The graph itself calls the guards, which check what the program's ranges hold. What torch does around it at each
    call is left out: it takes arguments apart that come as leaves already, and compares their structure.
    """
    from torch import fx
    from torch.utils import _pytree

    module.graph.set_codegen(fx.graph.CodeGen())
    module.recompile()
    forward, spec = module.forward, program.call_spec.out_spec
    if spec.type is None:
        return lambda values: forward(*values)[0]
    if spec.type in (tuple, list) and all(child.type is None for child in children(spec)):
        return lambda values: forward(*values)
    return lambda values: _pytree.tree_unflatten(forward(*values), spec)


def _nested(program: Any, module: Any) -> Any:
    """The same where the module checks its inputs before it runs the graph: without a sample input, or older torch."""
    from torch.utils import _pytree

    spec = program.call_spec.in_spec

    def run(values: list[Any]) -> Any:
        arguments, keywords = _pytree.tree_unflatten(values, spec)
        return module(*arguments, **keywords)

    return run


def children(spec: Any) -> Any:
    """The children of a node of torch's pytree; its attribute has had two names."""
    return spec.children() if hasattr(spec, "children") else spec.children_specs


def named_leaves(spec: Any, argument_names: list[str]) -> list[tuple[str, str]]:
    """(name, path) of each leaf: `x` and `ARGS[0]`; what lies deeper is called by its path (`ARGS[0][key]`)."""
    arguments, keywords = children(spec)
    found: list[tuple[str, str]] = []
    for at, child in enumerate(children(arguments)):
        plain = argument_names[at] if at < len(argument_names) else f"INPUT__{at}"
        _walk(child, f"ARGS[{at}]", plain, found)
    for key, child in zip(keywords.context or (), children(keywords)):
        _walk(child, f"KWARGS[{key}]", str(key), found)
    return found


def _walk(spec: Any, path: str, plain: str, found: list[tuple[str, str]]) -> None:
    below = children(spec)
    if spec.type is None:
        found.append((plain or path, path))
        return
    keys = spec.context if isinstance(spec.context, (list, tuple)) else range(len(below))
    if len(list(keys)) != len(below):
        keys = range(len(below))
    for key, child in zip(keys, below):
        _walk(child, f"{path}[{key}]", "", found)
