"""TorchScript models: inputs are views on the arena, outputs are copied into it once."""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

import numpy as np

from naiad_worker.backends import LoadFailure, LoadSpec
from naiad_worker.tensors import Bf16Array

FORKS = True


def preimport() -> None:
    """Imports torch with one thread; never runs a model and never touches CUDA (the zygote calls it)."""
    import torch

    torch.set_num_threads(1)


class Backend:
    """One loaded TorchScript module."""

    def __init__(self, spec: LoadSpec) -> None:
        import torch

        self._torch = torch
        torch.set_num_threads(max(1, spec.threads))
        self._device = torch.device("cpu")
        if spec.device.get("kind") == "cuda":
            self._device = torch.device("cuda", int(spec.device.get("id", 0)))
        path = os.path.join(spec.directory, spec.file)
        try:
            with warnings.catch_warnings():
                # TorchScript is deprecated, still loads, and is what the user has.
                warnings.simplefilter("ignore")
                self._module = torch.jit.load(path, map_location=self._device)
        except (RuntimeError, ValueError, OSError) as error:
            cause = str(error).strip().splitlines()
            raise LoadFailure(f"torch cannot load '{spec.file}': {cause[0] if cause else error!r}") from error
        self._module.eval()
        self._arguments = [argument.name for argument in self._module.forward.schema.arguments[1:]]
        self._order: list[int] = []
        self._outputs: list[dict[str, Any]] = []

    # -- names ------------------------------------------------------------------------------------------------------

    def _position(self, tensor: dict[str, Any], position: int, count: int) -> int:
        """Which argument of forward() an input is; an ambiguous name is an error, never a guess."""
        for name in (tensor.get("argument"), tensor["name"]):
            if name and name in self._arguments:
                return self._arguments.index(name)
        numbered = re.fullmatch(r".*__(\d+)", tensor["name"])
        if numbered and int(numbered[1]) < len(self._arguments):
            return int(numbered[1])
        if count == 1:
            return 0
        names = ", ".join(self._arguments)
        raise LoadFailure(
            f"input '{tensor['name']}' (number {position}) names no argument of forward({names})",
            "name the inputs after the arguments or INPUT__0, INPUT__1, …; or set the input's 'argument'",
        )

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Fixes which argument each input is."""
        order = [self._position(tensor, index, len(inputs)) for index, tensor in enumerate(inputs)]
        if len(set(order)) != len(order):
            raise LoadFailure("two inputs name the same argument of forward()", "give each its own 'argument'")
        self._order = order
        self._outputs = outputs

    # -- execution --------------------------------------------------------------------------------------------------

    def _tensor(self, array: Any) -> Any:
        torch = self._torch
        if isinstance(array, Bf16Array):
            tensor = torch.from_numpy(array.view(np.ndarray).view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)

    def _array(self, tensor: Any) -> Any:
        torch = self._torch
        if not isinstance(tensor, torch.Tensor):
            tensor = torch.as_tensor(tensor)
        tensor = tensor.detach()
        if tensor.device.type != "cpu":
            tensor = tensor.cpu()
        if tensor.dtype == torch.bfloat16:
            return tensor.contiguous().view(torch.int16).numpy().view(np.uint16).view(Bf16Array)
        return tensor.numpy()

    def _named(self, result: Any) -> dict[str, Any]:
        """Outputs by name: keys of a dictionary, fields of a NamedTuple, else OUTPUT__0…n."""
        if isinstance(result, dict):
            return {str(name): self._array(value) for name, value in result.items()}
        if isinstance(result, (tuple, list)):
            return {f"OUTPUT__{index}": self._array(value) for index, value in enumerate(result)}
        return {"OUTPUT__0": self._array(result)}

    def _run(self, arguments: list[Any]) -> Any:
        with self._torch.inference_mode():
            return self._module(*arguments)

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name for inputs by argument name."""
        tensors = [{"name": name} for name in inputs]
        order = [self._position(tensor, index, len(tensors)) for index, tensor in enumerate(tensors)]
        arguments: list[Any] = [None] * len(order)
        for position, array in zip(order, inputs.values()):
            arguments[position] = self._tensor(array)
        return self._named(self._run(arguments))

    def execute(self, inputs: dict[int, Any]) -> tuple[list[tuple[int, Any]], bytes]:
        """Output arrays by index."""
        if len(inputs) != len(self._order):
            raise ValueError(f"expected {len(self._order)} inputs, got {len(inputs)}")
        arguments: list[Any] = [None] * len(self._order)
        for index, array in inputs.items():
            arguments[self._order[index]] = self._tensor(array)
        result = self._run(arguments)
        if len(self._outputs) == 1 and isinstance(result, self._torch.Tensor):
            return [(0, self._array(result))], b""
        named = self._named(result)
        outputs = []
        for index, tensor in enumerate(self._outputs):
            array = named.get(tensor["name"])
            if array is None:
                array = self._numbered(named, tensor["name"], index)
            outputs.append((index, array))
        return outputs, b""

    def _numbered(self, named: dict[str, Any], name: str, index: int) -> Any:
        """An output that the user renamed: by the number in its name, else by its place."""
        numbered = re.fullmatch(r".*__(\d+)", name)
        values = list(named.values())
        position = int(numbered[1]) if numbered else index
        if position >= len(values):
            raise ValueError(f"the model gave {len(values)} outputs, so there is none for '{name}'")
        return values[position]

    def finalize(self) -> None:
        """Drops the module."""
        del self._module
