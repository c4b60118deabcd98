"""A signature: the inputs and outputs of a model as its file tells them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSignature:
    """One input: what is not told is None."""

    name: str
    type: str
    """As the file writes it: `Tensor`, `Optional[Tensor]`, `int` …"""
    datatype: str | None = None
    """v2 name."""
    shape: tuple[int, ...] | None = None
    """The shape of the recorded example, the batch included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What was read from a file."""

    format: str
    """`TorchScript (traced)`, `TorchScript (scripted)` …"""
    backend: str
    inputs: tuple[TensorSignature, ...]
    output_type: str
    warnings: tuple[str, ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether every input has a datatype and a shape."""
        return bool(self.inputs) and all(t.datatype is not None and t.shape is not None for t in self.inputs)
