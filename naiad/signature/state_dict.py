"""Weights without a model: the keys and shapes of a state dict, and a script that exports the model they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from naiad.signature.archive import Archive
from naiad.signature.opcodes import NotReadable, Tensor, read

MAX_PICKLE = 1 << 20
SHOWN = 3
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PARALLEL = "module."
_SIZES = "28, 32, 64, 96, 128, 224, 256, 299, 384, 512"


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors by name, and the key of the checkpoint below which they lie ("" for none)."""

    tensors: Mapping[str, tuple[int, ...]]
    key: str


def read_weights(archive: Archive, top: str) -> Weights | None:
    """What a file of `torch.save` holds, read as opcodes and never executed; None where it is no state dict."""
    data = archive.read(f"{top}/data.pkl", MAX_PICKLE)
    if data is None:
        return None
    try:
        value = read(data)
    except NotReadable:
        return None
    return _find(value)


def _find(value: Any) -> Weights | None:
    if not isinstance(value, dict):
        return None
    found = _tensors(value)
    if found:
        return Weights(found, "")
    for key in (*_WRAPPERS, *value):
        inner = _tensors(value.get(key)) if isinstance(key, str) else {}
        if inner:
            return Weights(inner, str(key))
    return None


def _tensors(value: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, dict):
        return {}
    return {str(name): item.shape for name, item in value.items() if isinstance(item, Tensor)}


def describe(weights: Weights) -> str:
    """The first tensors, as one says them."""
    shown = [f"{name} {list(shape)}" for name, shape in list(weights.tensors.items())[:SHOWN]]
    rest = len(weights.tensors) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def script(weights: Weights | None, file: str) -> str:
    """Python that loads the weights into `MyModel`, the user's own class, and exports the model with an open batch."""
    lines = [
        "# exports the whole model instead of its weights; MyModel is your own class: import it here",
        "import torch",
        "model = MyModel()",
        f"weights = torch.load({file!r}, weights_only=True)",
    ]
    if weights is not None and weights.key:
        lines[-1] += f"[{weights.key!r}]"
    if weights is not None and all(name.startswith(_PARALLEL) for name in weights.tensors):
        lines.append(f"weights = {{name.removeprefix({_PARALLEL!r}): tensor for name, tensor in weights.items()}}")
    lines += ["model.load_state_dict(weights)", "model.eval()"]
    lines += _example(weights)
    lines += [
        "program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim('batch')},))",
        "torch.export.save(program, 'model.pt2')",
    ]
    return "\n".join(lines)


def _example(weights: Weights | None) -> list[str]:
    """Lines that make `example`: what the first layer takes, where its weight tells that."""
    name, shape = next(
        ((name, shape) for name, shape in (weights.tensors if weights else {}).items() if _is_first(name, shape)),
        ("", ()),
    )
    told = f"# a guess: {name} has shape {list(shape)}"
    if len(shape) in (3, 4, 5):
        size = ", ".join(["size"] * (len(shape) - 2))
        return [
            f"for size in ({_SIZES}):  {told}",
            f"    example = torch.zeros(2, {shape[1]}, {size})",
            "    try:",
            "        model(example)",
            "        break",
            "    except RuntimeError:",
            "        continue",
        ]
    if "weight_ih" in name:
        return [f"example = torch.zeros(2, 16, {shape[1]})  {told}"]
    if len(shape) == 2 and _is_embedding(name):
        return [f"example = torch.zeros(2, 16, dtype=torch.int64)  {told}"]
    if len(shape) == 2:
        return [f"example = torch.zeros(2, {shape[1]})  {told}"]
    return ["example = torch.zeros(2, 3, 224, 224)  # a guess: write the shape that the model takes"]


def _is_first(name: str, shape: tuple[int, ...]) -> bool:
    return "weight" in name.rpartition(".")[2] and 2 <= len(shape) <= 5


def _is_embedding(name: str) -> bool:
    return any(word in name.lower() for word in ("emb", "wte", "token", "vocab"))
