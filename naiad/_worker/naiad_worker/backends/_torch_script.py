"""Loads TorchScript files."""

from __future__ import annotations

import re
import warnings
from typing import Any

from naiad_worker.backends._torch_common import Place, Runner, loading

_DICTIONARY = "Dict[str, Tensor]"
_SCALARS = {"int": int, "float": float, "bool": bool}


def module(place: Place) -> Any:
    """The module, ready to run; raises `LoadFailure` for what torch does not take as TorchScript."""
    import torch

    with loading(place.file), warnings.catch_warnings():
        # TorchScript is deprecated, still loads, and is what the user has.
        warnings.simplefilter("ignore")
        found = torch.jit.load(place.path, map_location=place.device)
    return found.eval()


def load(place: Place) -> Runner:
    """Raises `LoadFailure` for what torch does not take as TorchScript."""
    script = module(place)
    arguments = script.forward.schema.arguments[1:]
    kinds = [str(argument.type) for argument in arguments]
    names = [argument.name for argument in arguments]
    if kinds == [_DICTIONARY]:
        return Runner(script, names, {}, keyed=True)
    scalars = [_SCALARS.get(re.sub(r"^Optional\[(\w+)\]$", r"\1", kind)) for kind in kinds]
    defaults = [argument.default_value if argument.has_default_value() else None for argument in arguments]
    if not any(scalars) and all(default is None for default in defaults):
        return Runner(lambda tensors: script(*tensors), names, {})

    def call(tensors: list[Any]) -> Any:
        """Numbers are tensors of one element on the way; what is not given has its default."""
        values = [
            default if tensor is None else kind(tensor.item()) if kind else tensor
            for kind, tensor, default in zip(scalars, tensors, defaults)
        ]
        return script(*values)

    return Runner(call, names, {})


def texts(array: Any) -> list[str]:
    """A BYTES tensor as TorchScript has texts, which is a list of them; raises `ValueError`."""
    if array.ndim != 1:
        raise ValueError(f"expected texts of one dim, for TorchScript has lists of them, got {list(array.shape)}")
    return [element.decode("utf-8") if isinstance(element, bytes) else str(element) for element in array]


def operation(text: str) -> str:
    """The operation that failed, from an error of the TorchScript interpreter; "" where it names none.

    The interpreter prints each frame of the serialized code, the innermost last: the line, and below it tildes that end
    in `<--- HERE`. The frames of the original code follow, with paths of the machine that saved it.
    """
    lines = text.partition("original code (most recent call last)")[0].splitlines()
    places = [at for at, line in enumerate(lines) if at and line.rstrip().endswith("<--- HERE")]
    return lines[places[-1] - 1].strip()[:200] if places else ""


def plain(text: str) -> str:
    """An error of the TorchScript interpreter in one line, with the operation that failed; "" of any other."""
    where = operation(text)
    if not where:
        return ""
    last = text.strip().splitlines()[-1]
    return f"{last.partition('RuntimeError: ')[2] or last} in `{where}`"
