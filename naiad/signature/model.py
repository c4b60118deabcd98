"""A signature: the inputs and outputs of a model as its file tells them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSignature:
    """One input or output: what is not told is None."""

    name: str
    type: str
    """As the file writes it: `Tensor`, `Optional[Tensor]`, `tensor(float)` …"""
    datatype: str | None = None
    """v2 name."""
    shape: tuple[int, ...] | None = None
    """The shape of a recorded example, the batch included: other dims may be dynamic."""
    dims: tuple[int, ...] | None = None
    """What the file declares, the batch included: -1 may be any size, every other dim is fixed."""
    path: str = ""
    """Where it stands in the call, which is a name, too: `ARGS[0]`, `KWARGS[mask]`; "" where that says nothing more."""
    optional: bool = False
    """Whether the model runs without it: an argument with a default, or one that may be None."""
    by_convention: bool = False
    """Whether the datatype is Naiad's convention and not the file's word: a configuration may choose another."""
    guesses: tuple[tuple[int, ...], ...] = ()
    """What a worker takes the dims for, the likeliest first, the batch included; -1 is a size to be found by runs."""

    @property
    def known(self) -> bool:
        """Whether the datatype and some shape are told, or guessed."""
        return self.datatype is not None and (self.shape is not None or self.dims is not None or bool(self.guesses))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What was read from a file."""

    format: str
    """`TorchScript (traced)`, `ONNX` …"""
    backend: str
    inputs: tuple[TensorSignature, ...]
    outputs: tuple[TensorSignature, ...] = ()
    """Empty where the file does not declare them."""
    output_type: str = ""
    """What `forward` returns, where the file says that instead."""
    max_batch: int | None = None
    """The largest batch that the file allows; None where it sets no bound."""
    describes: bool = False
    """Whether the model's own code tells what it takes, when it is loaded."""
    guessable: bool = False
    """Whether a worker can guess, from the model's weights, inputs that the file does not tell."""
    warnings: tuple[str, ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether every input has a datatype and a shape."""
        return bool(self.inputs) and all(tensor.known for tensor in self.inputs)


def output_names(signature: Signature) -> tuple[str, ...]:
    """Names of the outputs; empty where only a run tells them (a dictionary, a class)."""
    if signature.outputs:
        return tuple(tensor.name for tensor in signature.outputs)
    type_ = signature.output_type
    if type_ == "Tensor":
        return ("OUTPUT__0",)
    if type_.startswith("Tuple[") and type_.endswith("]"):
        members = [member.strip() for member in type_[6:-1].split(",")]
        if all(member == "Tensor" for member in members):
            return tuple(f"OUTPUT__{position}" for position in range(len(members)))
    return ()
