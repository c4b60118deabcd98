"""ONNX models: inputs are views on the arena that onnxruntime reads in place, outputs are copied into it."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from naiad_worker import onnx_errors, onnx_options
from naiad_worker.backends import LoadFailure, LoadSpec
from naiad_worker.tensors import Bf16Array

FORKS = True

_BF16 = 16  # TensorProto.BFLOAT16


def preimport() -> None:
    """Imports onnxruntime without the telemetry that it starts by default: a thread, and calls to its makers."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: F401


class Backend:
    """One session."""

    def __init__(self, spec: LoadSpec) -> None:
        preimport()
        import onnxruntime as ort

        self._ort = ort
        path = os.path.join(spec.directory, spec.file)
        if os.path.isdir(path):  # a model with its weights beside it, as in Triton
            path = os.path.join(path, "model.onnx")
        options = onnx_options.session_options(ort, spec)
        providers = onnx_options.providers(ort.get_available_providers(), spec)
        try:
            self._session = ort.InferenceSession(path, options, providers=providers)
        except Exception as error:  # onnxruntime has a class for each of its states
            raise onnx_errors.load_failure(error, file=spec.file, version=ort.__version__) from error
        for name, _ in providers:  # it goes on without one that fails to start
            if name not in self._session.get_providers():
                raise onnx_options.missing(name, self._session.get_providers())
        self._run_options = onnx_options.run_options(ort, spec.config)
        self._inputs = {told.name: told.type for told in self._session.get_inputs()}
        self._outputs = {told.name: told.type for told in self._session.get_outputs()}
        self._names: list[str] = []
        self._wanted: list[str] = list(self._outputs)
        self._dims: list[list[int]] = []

    # -- names ------------------------------------------------------------------------------------------------------

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Fixes which input and output of the model each one of the configuration is."""
        names = [tensor.get("argument") or tensor["name"] for tensor in inputs]
        self._names = _mapped("input", names, list(self._inputs))
        self._wanted = _mapped("output", [tensor["name"] for tensor in outputs], list(self._outputs))
        self._dims = [tensor["dims"] for tensor in outputs]

    # -- execution --------------------------------------------------------------------------------------------------

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """All outputs by name for inputs by name."""
        names = _mapped("input", list(inputs), list(self._inputs))
        wanted = list(self._outputs)
        return dict(zip(wanted, self._run(wanted, dict(zip(names, inputs.values())))))

    def execute(self, inputs: dict[int, Any]) -> tuple[list[tuple[int, Any]], bytes]:
        """Output arrays by index; only those of the configuration are asked for."""
        names = self._names
        arrays = self._run(self._wanted, {names[index]: array for index, array in inputs.items()})
        outputs = []
        for index, array in enumerate(arrays):
            # A configuration has no dims for a scalar: [1] stands for it.
            outputs.append((index, array.reshape(1) if array.ndim == 0 and self._dims[index] == [1] else array))
        return outputs, b""

    def _run(self, wanted: list[str], feeds: dict[str, Any]) -> list[Any]:
        bf16 = any(self._outputs[name] == "tensor(bfloat16)" for name in wanted)
        for name, array in feeds.items():
            if array.dtype == object:
                feeds[name] = _text(name, array)
            bf16 = bf16 or type(array) is Bf16Array
        try:
            if bf16:
                return self._run_values(wanted, feeds)
            return [_array(value) for value in self._session.run(wanted, feeds, self._run_options)]
        except Exception as error:
            raise RuntimeError(onnx_errors.plain(str(error))) from error

    def _run_values(self, wanted: list[str], feeds: dict[str, Any]) -> list[Any]:
        """The same where a tensor is BF16, for which numpy has no type: raw bits go in and come out."""
        make = self._ort.OrtValue
        values = {}
        for name, array in feeds.items():
            if isinstance(array, Bf16Array):
                values[name] = make.ortvalue_from_numpy_with_onnx_type(array.view(np.ndarray), _BF16)
            else:
                values[name] = make.ortvalue_from_numpy(array)
        results = self._session.run_with_ort_values(wanted, values, self._run_options)
        return [_bits(value) if value.data_type() == "tensor(bfloat16)" else _array(value.numpy()) for value in results]

    def finalize(self) -> None:
        """Drops the session."""
        del self._session


def _mapped(side: str, asked: list[str], there: list[str]) -> list[str]:
    """The model's own names of what is asked for: the same, or any name where there is only one of both."""
    if len(asked) == 1 and len(there) == 1:
        return there
    for name in asked:
        if name not in there:
            raise LoadFailure(
                f"{side} '{name}' names no {side} of the model; it has {', '.join(there)}",
                f"name the {side}s in config.pbtxt as the model does",
                "IO_MISMATCH",
            )
    if len(set(asked)) != len(asked):
        what = f"two {side}s are the same {side} of the model"
        raise LoadFailure(what, f"give each {side} its own name", "IO_MISMATCH")
    return asked


def _text(name: str, array: Any) -> Any:
    """Strings for BYTES; onnxruntime would take the printed form of a bytes object."""
    texts = np.empty(array.shape, dtype=object)
    try:
        texts.reshape(-1)[:] = [
            element.decode() if isinstance(element, bytes) else element for element in array.reshape(-1)
        ]
    except UnicodeDecodeError as error:
        raise ValueError(f"input '{name}': expected UTF-8 text, got {error.object[:20]!r}") from None
    return texts


def _array(value: Any) -> Any:
    """An output as an array; a scalar comes as a number or a text."""
    return value if type(value) is np.ndarray else np.asarray(value, dtype=object if isinstance(value, str) else None)


def _bits(value: Any) -> Any:
    """A copy of a BF16 output's bits."""
    size = value.tensor_size_in_bytes()
    raw = (ctypes.c_uint8 * size).from_address(value.data_ptr()) if size else b""
    return np.frombuffer(raw, dtype=np.uint16).reshape(value.shape()).copy().view(Bf16Array)
