"""Shapes at which a dry run tries a model whose file does not tell them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

Shapes = dict[str, list[int]]
SIZES = (32, 64, 256, 224, 1, 16000)
"""What open dims are tried at: images and texts, then single elements, then a second of sound."""
_SMALL = tuple(range(2, 9))
"""A model that takes any size takes one of these, and shows that at twice and three times its size soonest."""
_USUAL = (28, 32, 64, 96, 112, 128, 160, 192, 224, 227, 240, 256, 299, 300, 320, 384, 416, 448, 512, 640)
_REST = (*(size for size in range(9, 257) if size not in _USUAL), 8000, 16000)


def sized(dims: list[int], size: int) -> list[int]:
    """Dims as a shape: the first, if it is open, as 1, and the other open ones as `size`."""
    return [dim if dim >= 0 else size if place else 1 for place, dim in enumerate(dims)]


def guesses(inputs: list[dict[str, Any]]) -> Iterator[Shapes]:
    """Shapes for inputs of which some are guessed, the likeliest first.

    All open dims have the same size: small ones first, for models that take any; then usual ones, then every other up
    to 256. An input with several guesses of its rank has each in turn, together with the others.
    """
    most = max(len(entry.get("guesses", ())) for entry in inputs)
    ranks = [{entry["name"]: _chosen(entry, at) for entry in inputs} for at in range(most)]
    for sizes, dims in itertools.product((_SMALL, _USUAL, _REST), ranks):
        if not any(dim < 0 for shape in dims.values() for dim in shape[1:]):
            if sizes is _SMALL:
                yield {name: sized(shape, 1) for name, shape in dims.items()}
            continue
        for size in sizes:
            yield {name: sized(shape, size) for name, shape in dims.items()}


def _chosen(entry: dict[str, Any], at: int) -> list[int]:
    """The guess with this number, or the last one; dims that are known are as they are."""
    own: list[list[int]] = entry.get("guesses") or [entry["dims"]]
    return own[min(at, len(own) - 1)]


def known(inputs: list[dict[str, Any]], shapes: Shapes) -> dict[str, list[bool]]:
    """For each guessed input, which of its dims are no matter of trying."""
    told = {}
    for entry in inputs:
        shape = shapes[entry["name"]]
        own = [guess for guess in entry.get("guesses", ()) if len(guess) == len(shape)]
        if own:
            told[entry["name"]] = [dim >= 0 for dim in own[0]]
    return told
