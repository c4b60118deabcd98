"""Loads a class from `model.py` with its weights, as Triton's PyTorch 2 runtime does."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
from typing import Any

from naiad_worker.backends import LoadFailure
from naiad_worker.backends._torch_common import Place, Runner, first_line, loading

WEIGHTS = "model.pt"
_SWITCHES = ("fullgraph", "dynamic", "disable")
_TEXTS = {"true": True, "false": False}


def load(place: Place, compile_options: str) -> Runner:
    """The one subclass of `torch.nn.Module` in the file, made without arguments; raises `LoadFailure`."""
    import torch

    kind = _only_class(_module(place), torch)
    try:
        model = kind()
    except Exception as error:  # the class may raise anything
        raise LoadFailure(
            f"'{place.file}': {kind.__name__}() fails: {type(error).__name__}: {first_line(error)}",
            "the class is made without arguments: give each argument of __init__ a default",
        ) from error
    _weights(model, place, torch)
    if place.device is not None:
        model.to(place.device)
    model.eval()
    arguments = inspect.signature(model.forward).parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [name for name, argument in arguments.items() if argument.kind not in variadic]
    keywords = {name for name, argument in arguments.items() if argument.kind == inspect.Parameter.KEYWORD_ONLY}
    run = _compiled(model, compile_options, torch)

    def call(tensors: list[Any]) -> Any:
        by_place: list[Any] = []
        by_name: dict[str, Any] = {}
        for at, (name, tensor) in enumerate(zip(names, tensors)):
            if tensor is None:
                continue  # it has its default, and what follows needs its name
            if name in keywords or len(by_place) < at:
                by_name[name] = tensor
            else:
                by_place.append(tensor)
        return run(*by_place, **by_name)

    return Runner(call, names, {})


def _module(place: Place) -> Any:
    """The file as a module; its folder comes first on the path, so that it may import its neighbours."""
    folder = os.path.dirname(place.path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("model", place.path)
    if spec is None or spec.loader is None:
        raise LoadFailure(f"'{place.file}' is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:
        raise
    except Exception as error:  # model code may raise anything
        raise LoadFailure(f"'{place.file}' fails: {type(error).__name__}: {first_line(error)}") from error
    return module


def _only_class(module: Any, torch: Any) -> Any:
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, torch.nn.Module) and value.__module__ == module.__name__
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(kind.__name__ for kind in found)) or "none"
    raise LoadFailure(
        f"'model.py': expected exactly one subclass of torch.nn.Module, got {names}",
        "keep the model's class in model.py and move the other modules to a file beside it, which model.py imports",
    )


def _weights(model: Any, place: Place, torch: Any) -> None:
    path = os.path.join(os.path.dirname(place.path), WEIGHTS)
    if not os.path.exists(path):
        return
    with loading(WEIGHTS, "save it with torch.save(model.state_dict(), 'model.pt')"):
        # weights_only: nothing but tensors and plain values is read from the pickle.
        state = torch.load(path, map_location=place.device or "cpu", weights_only=True)
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        lines = " ".join(line.strip() for line in str(error).splitlines()[:4])
        raise LoadFailure(
            f"'{WEIGHTS}' does not fit the class {type(model).__name__}: {lines[:400]}",
            "save the weights of this very class: torch.save(model.state_dict(), 'model.pt')",
        ) from error


def _compiled(model: Any, options: str, torch: Any) -> Any:
    """The model, compiled where the configuration asks for it (JSON with the arguments of torch.compile)."""
    if not options.strip():
        return model
    name = "TORCH_COMPILE_OPTIONAL_PARAMETERS"
    try:
        arguments = json.loads(options)
    except ValueError as error:
        raise LoadFailure(f"parameters '{name}': expected JSON, got '{options[:100]}'") from error
    if not isinstance(arguments, dict):
        raise LoadFailure(f"parameters '{name}': expected a JSON object, got '{options[:100]}'")
    # Triton's own examples write the switches as texts.
    given = {key: _TEXTS.get(value, value) if isinstance(value, str) else value for key, value in arguments.items()}
    wrong = next((key for key in _SWITCHES if given.get(key) not in (None, True, False)), None)
    if wrong:
        raise LoadFailure(
            f"parameters '{name}': '{wrong}': expected true or false, got {json.dumps(given[wrong])[:100]}"
        )
    if given.get("disable"):
        return model
    try:
        return torch.compile(model, **given)
    except Exception as error:  # torch refuses arguments with errors of several classes
        raise LoadFailure(f"parameters '{name}': {first_line(error)}") from error
