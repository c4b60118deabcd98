"""What the loaders of the pytorch backend share: the call of a loaded model, and names of its outputs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from naiad_worker.backends import LoadFailure

CUDA = re.compile(r"\bcuda\b|NVIDIA", re.IGNORECASE)
"""What torch's errors say where a model wants a GPU."""
ON_GPU = "save the model again from the CPU, or serve it on a GPU: instance_group { kind: KIND_GPU }"


class Runner(NamedTuple):
    """A loaded model as a function of tensors, in the order of its arguments."""

    call: Callable[[Any], Any]
    arguments: list[str]
    """Names of the arguments."""
    aliases: dict[str, int]
    """Other names of an argument: `ARGS[0]`, `KWARGS[mask]`."""
    keyed: bool = False
    """Whether the model takes one dictionary: its call is then given a dictionary of the inputs by name."""


class Place(NamedTuple):
    """Where a model's file lies and on which device it runs."""

    path: str
    file: str
    """The file's name, as messages say it."""
    device: Any
    """A `torch.device`; None where the model chooses (KIND_MODEL)."""


def first_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else repr(error)


@contextlib.contextmanager
def loading(file: str, fix: str = "") -> Iterator[None]:
    """What torch raises while it reads a file becomes a `LoadFailure`."""
    try:
        yield
    except LoadFailure:
        raise
    except ImportError:
        raise  # the worker says which package is missing
    except Exception as error:  # torch raises any class for a file that it does not take
        text = first_line(error)
        if CUDA.search(text):
            raise LoadFailure(f"torch cannot load '{file}' here: {text}", ON_GPU, "CUDA_ONLY_TRACE") from error
        raise LoadFailure(f"torch cannot load '{file}': {text}", fix) from error


def named(result: Any, array: Callable[[Any], Any]) -> dict[str, Any]:
    """A result's tensors by name, each as `array` gives it.

    Keys of a dictionary, else OUTPUT__0…n by place; what lies deeper has its path: `RESULT[boxes][0]`. None is left
    out. A list of texts is one tensor.
    """
    if not _nests(result):
        return {"OUTPUT__0": array(result)}
    found: dict[str, Any] = {}
    keyed = isinstance(result, dict)
    for key, value in result.items() if keyed else enumerate(result):
        if _nests(value):
            _deeper(value, f"RESULT[{key}]", array, found)
        elif value is not None:
            found[str(key) if keyed else f"OUTPUT__{key}"] = array(value)
    return found


def is_texts(value: Any) -> bool:
    """Whether a value is a text or a list of texts."""
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(e, str) for e in value)
    )


def _nests(value: Any) -> bool:
    return isinstance(value, (dict, tuple, list)) and not is_texts(value)


def _deeper(value: Any, path: str, array: Callable[[Any], Any], found: dict[str, Any]) -> None:
    if _nests(value):
        for key, member in value.items() if isinstance(value, dict) else enumerate(value):
            _deeper(member, f"{path}[{key}]", array, found)
    elif value is not None:
        found[path] = array(value)
