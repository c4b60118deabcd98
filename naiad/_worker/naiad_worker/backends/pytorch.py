"""PyTorch models of every kind: inputs are views on the arena, outputs are copied into it once."""

from __future__ import annotations

import os
import re
import zipfile
from typing import Any

import numpy as np

from naiad_worker.backends import (
    LoadFailure,
    LoadSpec,
    _torch_aoti,
    _torch_class,
    _torch_export,
    _torch_guess,
    _torch_script,
)
from naiad_worker.backends._torch_common import CUDA, ON_GPU, Place, Runner, is_texts, named
from naiad_worker.backends._torch_settings import Settings, apply
from naiad_worker.tensors import Bf16Array

FORKS = True


def preimport() -> None:
    """Imports torch with one thread; never runs a model and never touches CUDA (the zygote calls it)."""
    import torch

    torch.set_num_threads(1)


def describe(spec: LoadSpec) -> dict[str, Any]:
    """What a TorchScript file is guessed to take: each argument, with `datatype` and `dims` where there is a guess.

    Raises `LoadFailure`.
    """
    import torch

    place = Place(os.path.join(spec.directory, spec.file), spec.file, torch.device("cpu"))
    module = _torch_script.module(place)
    arguments = module.forward.schema.arguments[1:]
    told = []
    for argument, guess in zip(arguments, _torch_guess.guess(module)):
        kind = str(argument.type)
        entry = {"name": argument.name, "optional": argument.has_default_value() or kind.startswith("Optional[")}
        told.append(entry if guess is None else {**entry, "datatype": guess.datatype, "dims": guess.dims})
    return {"input": told}


def load(spec: LoadSpec, place: Place, settings: Settings) -> Runner:
    """Loads a file by what it holds, whatever it is called; raises `LoadFailure`."""
    if place.file.endswith(".py"):
        return _torch_class.load(place, settings.compile)
    if settings.compile:
        print("parameter TORCH_COMPILE_OPTIONAL_PARAMETERS: only a class in a model.py is compiled", flush=True)
    compiled, exported = _programs(place.path)
    if compiled:
        return _torch_aoti.load(place, _only(compiled, place.file), batches=_batches(spec.config))
    return _torch_export.load(place) if exported else _torch_script.load(place)


def _programs(path: str) -> tuple[set[str], set[str]]:
    """Names of the compiled and of the exported programs of an archive (below its one top folder)."""
    compiled, exported = set(), set()
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return set(), set()  # torch says what is wrong with it
    for name in names:
        parts = name.split("/")
        if parts[1:3] == ["data", "aotinductor"] and name.endswith(".so"):
            compiled.add(parts[3])
        elif parts[1:2] == ["models"] and len(parts) == 3 and name.endswith(".json"):
            exported.add(parts[2])
    return compiled, exported


def _only(models: set[str], file: str) -> str:
    """The package's one model; torch's own name for it is `model`."""
    if "model" in models or len(models) == 1:
        return "model" if "model" in models else next(iter(models))
    raise LoadFailure(
        f"'{file}' holds the compiled models {', '.join(sorted(models))}; expected one, or one called 'model'",
        "package each model into a file of its own",
    )


def _batches(config: dict[str, Any]) -> bool:
    """Whether the first dim may be the batch: it is not where inputs are written without a batch size."""
    return bool(config.get("max_batch_size")) or not (config.get("input") or config.get("output"))


class Backend:
    """One loaded model."""

    def __init__(self, spec: LoadSpec) -> None:
        import torch

        self._torch = torch
        self._settings = apply(spec, torch)
        kind = spec.device.get("kind")
        self._device = None if kind == "model" else torch.device("cpu")
        if kind == "cuda":
            self._device = torch.device("cuda", int(spec.device.get("id", 0)))
        self._moves = self._device is not None and self._device.type != "cpu"
        place = Place(os.path.join(spec.directory, spec.file), spec.file, self._device)
        self._runner = load(spec, place, self._settings)
        self._order: list[int] = []
        self._keys: list[str] = []
        self._outputs: list[dict[str, Any]] = []

    # -- names ------------------------------------------------------------------------------------------------------

    def _position(self, tensor: dict[str, Any], position: int, count: int) -> int:
        """Which argument of forward() an input is; an ambiguous name is an error, never a guess."""
        arguments, aliases = self._runner.arguments, self._runner.aliases
        for name in (tensor.get("argument"), tensor["name"]):
            if name and name in arguments:
                return arguments.index(name)
            if name and name in aliases:
                return aliases[name]
        numbered = re.fullmatch(r".*__(\d+)", tensor["name"])
        if numbered and int(numbered[1]) < len(arguments):
            return int(numbered[1])
        if count == 1:
            return 0
        names = ", ".join(arguments)
        raise LoadFailure(
            f"input '{tensor['name']}' (number {position}) names no argument of forward({names})",
            "name the inputs after the arguments or INPUT__0, INPUT__1, …; or set the input's 'argument'",
        )

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Fixes which argument each input is."""
        self._outputs = outputs
        if self._runner.keyed:
            self._keys = [tensor.get("argument") or tensor["name"] for tensor in inputs]
            return
        order = [self._position(tensor, index, len(inputs)) for index, tensor in enumerate(inputs)]
        if len(set(order)) != len(order):
            raise LoadFailure("two inputs name the same argument of forward()", "give each its own 'argument'")
        self._order = order

    # -- execution --------------------------------------------------------------------------------------------------

    def _tensor(self, array: Any) -> Any:
        torch = self._torch
        if array.dtype == object:
            return _torch_script.texts(array)
        if isinstance(array, Bf16Array):
            tensor = torch.from_numpy(array.view(np.ndarray).view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array)
        return tensor.to(self._device) if self._moves else tensor

    def _array(self, tensor: Any) -> Any:
        torch = self._torch
        if is_texts(tensor):
            return np.array(tensor, dtype=object)
        if not isinstance(tensor, torch.Tensor):
            tensor = torch.as_tensor(tensor)
        tensor = tensor.detach()
        if tensor.device.type != "cpu":
            tensor = tensor.cpu()
        if tensor.dtype == torch.bfloat16:
            return tensor.contiguous().view(torch.int16).numpy().view(np.uint16).view(Bf16Array)
        return tensor.numpy()

    def _run(self, arguments: Any) -> Any:
        torch, settings = self._torch, self._settings
        with torch.inference_mode() if settings.inference_mode else torch.no_grad():
            if settings.optimized:
                return self._runner.call(arguments)
            with torch.jit.optimized_execution(False):
                return self._runner.call(arguments)

    def _arguments(self, order: list[int], inputs: dict[int, Any]) -> list[Any]:
        """Tensors in the order of the model's arguments; None for those before the last that no input is."""
        arguments: list[Any] = [None] * (max(order, default=-1) + 1)
        for index, array in inputs.items():
            arguments[order[index]] = self._tensor(array)
        return arguments

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name for inputs by argument name; an error of TorchScript's interpreter names the operation."""
        arguments: Any
        if self._runner.keyed:
            arguments = {name: self._tensor(array) for name, array in inputs.items()}
        else:
            order = [self._position({"name": name}, index, len(inputs)) for index, name in enumerate(inputs)]
            arguments = self._arguments(order, dict(enumerate(inputs.values())))
        try:
            return named(self._run(arguments), self._array)
        except RuntimeError as error:
            text = _torch_script.plain(str(error))
            last = text or (str(error).splitlines() or [""])[-1]
            if CUDA.search(last) and not self._moves:
                raise LoadFailure(last, ON_GPU, "CUDA_ONLY_TRACE") from error
            if not text:
                raise
            raise RuntimeError(text) from error

    def execute(self, inputs: dict[int, Any]) -> tuple[list[tuple[int, Any]], bytes]:
        """Output arrays by index."""
        if self._runner.keyed:
            result = self._answer({self._keys[index]: self._tensor(array) for index, array in inputs.items()})
        else:
            if len(inputs) != len(self._order):
                raise ValueError(f"expected {len(self._order)} inputs, got {len(inputs)}")
            result = self._answer(self._arguments(self._order, inputs))
        if self._settings.clean_cache and self._moves:
            self._torch.cuda.empty_cache()
        if len(self._outputs) == 1 and isinstance(result, self._torch.Tensor):
            return [(0, self._array(result))], b""
        found = named(result, self._array)
        outputs = []
        for index, tensor in enumerate(self._outputs):
            array = found.get(tensor["name"])
            if array is None:
                array = _numbered(found, tensor["name"], index)
            outputs.append((index, array))
        return outputs, b""

    def _answer(self, arguments: Any) -> Any:
        """What the model gives; an error of its own goes to clients, who learn no path of who saved it."""
        try:
            return self._run(arguments)
        except RuntimeError as error:
            text = _torch_script.plain(str(error))
            if not text:
                raise
            raise RuntimeError(text) from error

    def finalize(self) -> None:
        """Drops the model."""
        del self._runner


def _numbered(found: dict[str, Any], name: str, index: int) -> Any:
    """An output that the user renamed: by the key or number in its name, else by its place."""
    keyed = re.fullmatch(r"RESULT\[([^\[\]]+)\]", name)
    if keyed and keyed[1] in found:
        return found[keyed[1]]
    numbered = re.fullmatch(r".*__(\d+)|RESULT\[(\d+)\]", name)
    values = list(found.values())
    position = int(numbered[1] or numbered[2]) if numbered else index
    if position >= len(values):
        raise ValueError(f"the model gave {len(values)} outputs, so there is none for '{name}'")
    return values[position]
