"""A tensor of a Triton Python model: a name with an array, or with memory of another framework."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from naiad_worker.tensors import BF16, BYTES, Bf16Array, code_of
from naiad_worker.triton.errors import TritonModelException

_CPU, _CUDA, _CUDA_HOST = 1, 2, 3  # numbers of DLDeviceType
_UINT, _BFLOAT = 1, 4  # numbers of DLDataTypeCode
_DEVICE_AT, _TYPE_AT = 8, 20
"""Where `device` and `dtype.code` lie in a DLTensor: behind the pointer, and behind the number of dims (dlpack.h)."""


class Tensor:
    """One input or output."""

    def __init__(self, name: str, numpy_array: Any) -> None:
        if not name:
            raise TritonModelException("Tensor name cannot be an empty string.")
        if not isinstance(numpy_array, np.ndarray):
            raise TypeError(f"tensor '{name}': expected a numpy array, got {type(numpy_array).__name__}")
        try:
            self._code = code_of(numpy_array)
        except TypeError as error:
            raise TritonModelException(f"NumPy dtype is not supported. Tensor '{name}': {error}") from None
        self._name = name
        self._array = numpy_array
        self._foreign: Any = None

    @classmethod
    def of(cls, name: str, array: Any, code: int) -> Tensor:
        """A tensor of an array whose datatype is known, without a second look."""
        tensor = cls.__new__(cls)
        tensor._name, tensor._array, tensor._code, tensor._foreign = name, array, code, None
        return tensor

    def name(self) -> str:
        """Its name."""
        return self._name

    def shape(self) -> list[int]:
        """Its dims, the batch included."""
        return list(self._array.shape if self._foreign is None else self._foreign.shape)

    def triton_dtype(self) -> int:
        """The number of its datatype."""
        return self._code

    def is_cpu(self) -> bool:
        """Whether its memory is the machine's own and not a GPU's."""
        return self._foreign is None

    def as_numpy(self) -> Any:
        """The array: for inputs a view that is valid until `execute` returns; BYTES as objects of `bytes`."""
        if self._foreign is not None:
            raise TritonModelException("Tensor is stored in GPU and cannot be converted to NumPy.")
        if self._code == BF16:
            raise TritonModelException("Tensor dtype is BF16 and cannot be converted to numpy; use to_dlpack")
        return self._array

    def to_dlpack(self) -> Any:
        """A DLPack capsule of the same memory, which is consumed once."""
        if self._code == BYTES:
            raise TritonModelException("DLPack does not have support for string tensors.")
        if self._foreign is not None:
            return self._foreign.__dlpack__()
        _require_dlpack()
        array = self._array
        if not array.flags.writeable or not array.dtype.isnative:  # numpy exports no other
            array = array.astype(array.dtype.newbyteorder("="))
        if self._code != BF16:
            return np.asarray(array).__dlpack__()
        capsule = np.asarray(array).view(np.uint16).__dlpack__()
        _retype(capsule, _UINT, _BFLOAT)
        return capsule

    def __dlpack__(self, *, stream: Any = None, **_later: Any) -> Any:
        return self.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        if self._foreign is None:
            return _CPU, 0
        kind, number = self._foreign.__dlpack_device__()
        return int(kind), int(number)

    @classmethod
    def from_dlpack(cls, name: str, tensor: Any) -> Tensor:
        """A tensor of a DLPack capsule, or of an object of another framework, without a copy where it lies on the CPU.

        Raises `TritonModelException` for memory that is not contiguous or of an unknown datatype.
        """
        if not name:
            raise TritonModelException("Tensor name cannot be an empty string.")
        is_capsule = type(tensor).__name__ == "PyCapsule"
        if not is_capsule and not hasattr(tensor, "__dlpack__"):
            raise TritonModelException(
                "Provided tensor is not supported. Tensor must be a DLPack capsule or have a `__dlpack__` attribute"
            )
        kind = _device_of(tensor) if is_capsule else int(tensor.__dlpack_device__()[0])
        if kind not in (_CPU, _CUDA_HOST):
            return cls._on_device(name, _of_torch(tensor) if kind == _CUDA else tensor, kind)
        _require_dlpack()
        capsule = tensor if is_capsule else tensor.__dlpack__()
        is_bf16 = _retype(capsule, _BFLOAT, _UINT)
        try:
            array = np.from_dlpack(_Capsule(capsule))
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise TritonModelException(f"tensor '{name}': {error}") from None
        if not array.flags.c_contiguous:
            raise TritonModelException(
                "DLPack tensor is not contiguous. Only contiguous DLPack tensors that are stored in C-Order are "
                "supported."
            )
        return cls(name, array.view(Bf16Array) if is_bf16 else array)

    @classmethod
    def _on_device(cls, name: str, tensor: Any, kind: int) -> Tensor:
        if kind != _CUDA or not hasattr(tensor, "cpu"):
            raise TritonModelException(f"DLDevice type {kind} is not support by Python backend.")
        host = cls.from_dlpack(name, tensor[:0].cpu() if len(tensor.shape) else tensor.cpu())
        made = cls.of(name, None, host.triton_dtype())
        made._foreign = tensor
        return made

    def on_host(self) -> Any:
        """The array that goes into a response, fetched from the GPU where it lies there."""
        if self._foreign is None:
            return self._array
        return Tensor.from_dlpack(self._name, self._foreign.detach().cpu().contiguous())._array


class _Capsule:
    """A capsule as numpy wants to be handed one."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0


def _require_dlpack() -> None:
    """Raises `TritonModelException` where numpy is too old to exchange memory (numpy 1.22 began it)."""
    if not hasattr(np, "from_dlpack"):
        raise TritonModelException(f"DLPack needs numpy 1.22 or later in the model's environment, got {np.__version__}")


def _pointer(capsule: Any) -> int:
    """Where the DLTensor of a capsule lies."""
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype = ctypes.c_void_p
    pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
    try:
        return int(pointer_of(capsule, b"dltensor"))
    except ValueError:
        raise TritonModelException("the DLPack capsule has been consumed already") from None


def _device_of(capsule: Any) -> int:
    """The kind of memory that a capsule holds, as DLDeviceType numbers it."""
    return ctypes.c_int32.from_address(_pointer(capsule) + _DEVICE_AT).value


def _of_torch(tensor: Any) -> Any:
    """GPU memory as a tensor of torch, which alone is asked to copy from there; raises `TritonModelException`."""
    if hasattr(tensor, "cpu"):
        return tensor
    torch = sys.modules.get("torch")
    if torch is None:
        raise TritonModelException("a DLPack tensor on a GPU needs PyTorch: import torch in the model")
    return torch.utils.dlpack.from_dlpack(tensor)


def _retype(capsule: Any, old: int, new: int) -> bool:
    """Calls the elements of a capsule another kind of the same 16 bits; whether they were of the old kind.

    numpy has no BF16, so that its bits cross as unsigned integers.
    """
    pointer = _pointer(capsule)
    code, bits = (ctypes.c_uint8 * 2).from_address(pointer + _TYPE_AT)
    if (code, bits) != (old, 16):
        return False
    ctypes.c_uint8.from_address(pointer + _TYPE_AT).value = new
    return True
