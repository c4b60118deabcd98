"""Guesses what a TorchScript file takes from the first operation on each argument that has weights.

A convolution tells the rank, the channels and the datatype, a linear layer the last dim, an embedding that there are
whole numbers. What comes before is followed back where that is certain (a scaling, a transposition); a conversion of
the datatype, control flow over values or an unknown operation ends the search, and nothing is guessed.
"""

from __future__ import annotations

import warnings
from typing import Any, Callable, NamedTuple

_DATATYPES = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP32", "float64": "FP64"}

Dims = list[int]


class Guess(NamedTuple):
    """One input; -1 is a size that nothing tells, the first dim is the batch."""

    datatype: str
    dims: list[Dims]
    """The likeliest first: a linear layer takes rows and sequences of rows."""


# Operations that keep shape and datatype of their one tensor.
_KEEPING = frozenset(
    """relu relu_ relu6 relu6_ sigmoid tanh gelu silu silu_ hardtanh hardtanh_ hardswish hardsigmoid elu leaky_relu
    leaky_relu_ clamp clip clamp_min clamp_max dropout dropout_ feature_dropout contiguous neg abs sqrt rsqrt log log1p
    exp square detach clone alias softmax log_softmax batch_norm layer_norm group_norm instance_norm""".split()
)
# Operations of two, of which the other has to be a number or a weight.
_SCALING = frozenset("add sub rsub mul div true_divide pow add_ sub_ mul_ div_".split())
# Operations that change no more than the sizes after the channels.
_SPATIAL = frozenset(
    """pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_max_pool1d adaptive_max_pool2d upsample_nearest1d upsample_nearest2d upsample_bilinear2d
    upsample_bicubic2d""".split()
)
_DEEPEST = 64
_MOST_STEPS = 10_000


def guess(module: Any) -> list[Guess | None]:
    """A guess, or None, for each argument of `forward` in order; only what is constant in it is run."""
    graph = _Graph(_frozen(module))
    return [graph.guess(value) for value in list(graph.inputs)[1:]]


def _frozen(module: Any) -> Any:
    """The graph of `forward` with its weights as constants, as far as torch can make them so."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.freeze(module.eval(), optimize_numerics=False).graph
        except Exception:  # torch raises any class for a module that it does not freeze, and a frozen one is so already
            return module.inlined_graph


class _Graph:
    """Who takes each value, in the order of execution."""

    def __init__(self, graph: Any) -> None:
        self.inputs = [value.debugName() for value in graph.inputs()]
        self._takers: dict[str, list[Any]] = {}
        self._outer: dict[str, str] = {}
        self._steps = 0
        self._read(graph)

    def _read(self, block: Any) -> None:
        for node in block.nodes():
            for value in node.inputs():
                takers = self._takers.setdefault(value.debugName(), [])
                if not takers or takers[-1] is not node:
                    takers.append(node)
            outputs = [value.debugName() for value in node.outputs()]
            for inner in node.blocks():
                self._read(inner)
                if node.kind() == "prim::If":
                    given = [value.debugName() for value in inner.outputs()]
                    self._outer.update(zip(given, outputs))

    def guess(self, name: str, depth: int = 0) -> Guess | None:
        """What the first taker that tells something says of a value."""
        self._steps += 1
        if depth > _DEEPEST or self._steps > _MOST_STEPS:
            return None
        for node in self._takers.get(name, ()):
            found = self._by(node, name, depth)
            if found is not None:
                return found
        outer = self._outer.get(name)
        return self.guess(outer, depth + 1) if outer is not None else None

    def _by(self, node: Any, name: str, depth: int) -> Guess | None:
        kind = node.kind().rpartition("::")[2]
        inputs = list(node.inputs())
        if kind in _TELLING:
            return _TELLING[kind](inputs, name)
        if not node.kind().startswith("aten::") or not inputs or node.outputsSize() != 1:
            return None
        before = _BEFORE.get(kind)
        if kind in _SCALING:
            before = _same if all(_plain(value, name) for value in inputs[:2]) else None
        if before is None or (kind not in _SCALING and inputs[0].debugName() != name):
            return None
        after = self.guess(node.output().debugName(), depth + 1)
        if after is None:
            return None
        dims = [found for found in (before(dims, inputs) for dims in after.dims) if found]
        return Guess(after.datatype, dims) if dims else None


def _plain(value: Any, name: str) -> bool:
    """Whether a value is the one that is followed, or known before the model runs."""
    return value.debugName() == name or value.toIValue() is not None or str(value.type()) in ("int", "float")


# -- what an operation takes, from its weights ------------------------------------------------------------------------


def _weight(value: Any) -> Any:
    """A weight of floating point; None for anything else."""
    found = value.toIValue()
    return found if str(getattr(found, "dtype", ""))[6:] in _DATATYPES else None


def _told(weight: Any, *dims: Dims) -> Guess:
    return Guess(_DATATYPES[str(weight.dtype)[6:]], list(dims))


def _convolution(places: tuple[int, int | None], transposed: bool) -> Callable[[list[Any], str], Guess | None]:
    groups_at, transposed_at = places

    def tell(inputs: list[Any], name: str) -> Guess | None:
        weight = _weight(inputs[1])
        if weight is None or inputs[0].debugName() != name or len(inputs) <= groups_at:
            return None
        turned = transposed if transposed_at is None else inputs[transposed_at].toIValue()
        groups = inputs[groups_at].toIValue()
        if turned is None or groups is None:
            return None
        channels = weight.shape[0] if turned else weight.shape[1] * groups
        return _told(weight, [-1, int(channels), *[-1] * (weight.dim() - 2)])

    return tell


def _linear(inputs: list[Any], name: str) -> Guess | None:
    return _rows(inputs[0], name, _weight(inputs[1]), 1)


def _matmul(inputs: list[Any], name: str) -> Guess | None:
    return _rows(inputs[0], name, _weight(inputs[1]), 0)


def _addmm(inputs: list[Any], name: str) -> Guess | None:
    return _rows(inputs[1], name, _weight(inputs[2]), 0)


def _rows(value: Any, name: str, weight: Any, side: int) -> Guess | None:
    if weight is None or value.debugName() != name or weight.dim() != 2:
        return None
    wide = int(weight.shape[side])
    return _told(weight, [-1, wide], [-1, -1, wide])


def _embedding(inputs: list[Any], name: str) -> Guess | None:
    if _weight(inputs[0]) is None or inputs[1].debugName() != name:
        return None
    return Guess("INT64", [[-1, -1], [-1]])


def _bag(inputs: list[Any], name: str) -> Guess | None:
    """Ids of equal length come as rows, which torch makes one list of."""
    return Guess("INT64", [[-1, -1]]) if _embedding(inputs, name) else None


def _recurrent(inputs: list[Any], name: str) -> Guess | None:
    """LSTM, GRU, RNN: (input, state, weights, …, batch_first); where time comes first nothing is guessed."""
    weights = inputs[2].toIValue() if len(inputs) > 3 else None
    if not isinstance(weights, list) or not weights or inputs[0].debugName() != name or not inputs[-1].toIValue():
        return None
    if str(weights[0].dtype)[6:] not in _DATATYPES:
        return None
    return _told(weights[0], [-1, -1, int(weights[0].shape[1])])


_TELLING: dict[str, Callable[[list[Any], str], Guess | None]] = {
    **{f"conv{rank}d": _convolution((6, None), False) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _convolution((6, None), True) for rank in (1, 2, 3)},
    "_convolution": _convolution((8, 6), False),
    "convolution": _convolution((8, 6), False),
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "addmm": _addmm,
    "embedding": _embedding,
    "embedding_bag": _bag,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}


# -- dims before an operation, from those after it --------------------------------------------------------------------


def _same(dims: Dims, _inputs: list[Any]) -> Dims | None:
    return dims


def _spatial(dims: Dims, _inputs: list[Any]) -> Dims | None:
    return dims if len(dims) > 2 and all(dim == -1 for dim in dims[2:]) else None


def _transposed(dims: Dims, inputs: list[Any]) -> Dims | None:
    one, other = (value.toIValue() for value in inputs[1:3])
    return _ordered(dims, {one: other, other: one})


def _permuted(dims: Dims, inputs: list[Any]) -> Dims | None:
    order = inputs[1].toIValue()
    if not isinstance(order, list) or len(order) != len(dims):
        return None
    return _ordered(dims, dict(enumerate(order)))


def _ordered(dims: Dims, moved: dict[Any, Any]) -> Dims | None:
    """Dims before each place came from the other that `moved` names."""
    rank = len(dims)
    if any(not isinstance(at, int) or not -rank <= at < rank for at in (*moved, *moved.values())):
        return None
    before = list(dims)
    for at, origin in moved.items():
        before[origin] = dims[at]
    return before


def _unsqueezed(dims: Dims, inputs: list[Any]) -> Dims | None:
    at = inputs[1].toIValue()
    if not isinstance(at, int) or not -len(dims) <= at < len(dims) or dims[at] not in (1, -1):
        return None
    at %= len(dims)
    return [*dims[:at], *dims[at + 1 :]] if at else None


def _flattened(dims: Dims, inputs: list[Any]) -> Dims | None:
    """Rows stay what they are where they are rows already."""
    start = inputs[1].toIValue() if len(inputs) > 1 else 0
    return dims if len(dims) == 2 and start == 1 else None


def _viewed(dims: Dims, _inputs: list[Any]) -> Dims | None:
    return dims if len(dims) == 2 else None


_BEFORE: dict[str, Callable[[Dims, list[Any]], Dims | None]] = {
    **dict.fromkeys(_KEEPING, _same),
    **dict.fromkeys(_SPATIAL, _spatial),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transposed),
    "permute": _permuted,
    "unsqueeze": _unsqueezed,
    "flatten": _flattened,
    **dict.fromkeys(("view", "reshape"), _viewed),
}
