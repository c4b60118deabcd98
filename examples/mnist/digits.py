"""Reads the handwritten digits, keeps some of them for the test and shapes them as the model wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
DATA = HERE / "data" / "mnist8500.npz"
KEPT_FOR_TEST = 1000
SIDE = 32

Pixels = NDArray[np.uint8]
Images = NDArray[np.float32]
Labels = NDArray[np.int64]


def load() -> tuple[Pixels, Labels]:
    """Return all 8,500 digits as they are stored, 28 pixels a side."""
    with np.load(DATA, allow_pickle=False) as file:
        return file["x"], file["y"].astype(np.int64)


def prepare(pixels: Pixels) -> Images:
    """Scale to 0..1 and pad with black to 32 pixels a side: [count, 1, 32, 32]."""
    edge = (SIDE - pixels.shape[-1]) // 2
    padded = np.pad(pixels, ((0, 0), (edge, edge), (edge, edge)))
    return (padded.astype(np.float32) / 255.0)[:, np.newaxis]


def split() -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Return 7,500 digits to train on and the 1,000 that training never sees."""
    pixels, labels = load()
    order = np.random.default_rng(seed=0).permutation(len(labels))
    images, labels = prepare(pixels[order]), labels[order]
    return (images[:-KEPT_FOR_TEST], labels[:-KEPT_FOR_TEST]), (images[-KEPT_FOR_TEST:], labels[-KEPT_FOR_TEST:])
