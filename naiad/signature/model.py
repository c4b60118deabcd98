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


def output_names(type_: str) -> tuple[str, ...]:
    """Names of the outputs by their type; empty where only a run tells them (a dictionary, a class)."""
    if type_ == "Tensor":
        return ("OUTPUT__0",)
    if type_.startswith("Tuple[") and type_.endswith("]"):
        members = [member.strip() for member in type_[6:-1].split(",")]
        if all(member == "Tensor" for member in members):
            return tuple(f"OUTPUT__{position}" for position in range(len(members)))
    return ()
