"""The dry run on functions of numpy: which sizes are tried, which dims vary, whether rows of a batch keep apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from naiad_worker.probe import Probe
from naiad_worker.rows import mixing
from naiad_worker.sizes import guesses
from naiad_worker.tensors import Bf16Array


class Function:
    """A backend of one function of arrays by name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.calls = 0

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        return {"y": self._function(**inputs)}


def entry(*dims: int, name: str = "x", datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "dims": list(dims), **more}


def report(function: Callable[..., Any], *inputs: dict[str, Any]) -> dict[str, Any]:
    return Probe(Function(function), list(inputs)).report(batched=True)


# -- rows of a batch --------------------------------------------------------------------------------------------------


def half(x: Any) -> Any:
    """BF16 bits whose last row is the sum of all."""
    wide = (np.asarray(x).astype(np.uint32) << 16).view(np.float32)
    return (np.cumsum(wide, 0, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16).view(Bf16Array)


@pytest.mark.parametrize(
    ("function", "datatype", "mixes"),
    [
        (lambda x: x * 2, "FP32", False),
        (lambda x: np.tanh(x).sum(1, keepdims=True), "FP64", False),
        (lambda x: np.cumsum(x, 0), "FP32", True),
        (lambda x: x - x.mean(0), "FP32", True),
        (lambda x: np.flip(np.cumsum(np.flip(x, 0), 0), 0), "FP32", True),
        (lambda x: np.cumsum(x, 0).astype(np.float32), "INT64", True),
        (lambda x: np.cumsum(x, 0), "INT64", False),  # whole numbers may be classes: they tell nothing
        (lambda x: np.round(x / x.max() * 127) / 127 * x.max(), "FP32", False),  # one scale for a quantised batch
        (half, "BF16", True),
        (lambda x: x * np.nan, "FP32", False),
    ],
)
def test_rows_that_change_each_other_are_noticed(function, datatype, mixes):
    backend = Function(function)
    said = mixing(backend.probe, [entry(1, 4, datatype=datatype)], {"x": [1, 4]})
    assert said == ("output 'y' of one row changes with another row of the batch" if mixes else "")


def test_a_model_whose_answers_change_by_themselves_tells_nothing():
    random = np.random.default_rng(0)
    assert mixing(Function(lambda x: x + random.random(x.shape)).probe, [entry(1, 4)], {"x": [1, 4]}) == ""


def test_a_model_that_takes_zeros_only_tells_nothing():
    def picky(x: Any) -> Any:
        assert not x.any()
        return x

    assert mixing(Function(picky).probe, [entry(1, 4)], {"x": [1, 4]}) == ""


def test_a_model_that_mixes_rows_does_not_batch_and_its_first_dim_varies():
    told = report(lambda x: np.cumsum(x, 0), entry(2, 4))
    assert (told["batchable"], told["mixed"], told["reason"][:10]) == (False, True, "output 'y'")
    assert told["varying"] == {"x": [True, True]}
    assert told["outputs"][0]["dims"] == [-1, -1]
    apart = report(lambda x: x * 2, entry(2, 4))
    assert (apart["batchable"], apart["mixed"], apart["shapes"]) == (True, False, {"x": [1, 4]})


# -- dims that vary ---------------------------------------------------------------------------------------------------


def test_a_dim_that_makes_more_rows_does_not_vary():
    told = report(lambda x: x.reshape(-1, 8), entry(1, 8))
    assert (told["batchable"], told["varying"]) == (True, {"x": [False, False]})
    assert told["outputs"][0]["dims"] == [-1, 8]


def test_a_size_of_nothing_is_open():
    told = report(lambda x: np.zeros((x.shape[0], int(x.sum()), 4)), entry(1, 8))
    assert told["outputs"][0]["dims"] == [-1, -1, 4]


# -- guesses ----------------------------------------------------------------------------------------------------------


def guessed(*shapes: list[int], name: str = "x", datatype: str = "FP32") -> dict[str, Any]:
    return entry(*shapes[0], name=name, datatype=datatype, guesses=list(shapes))


def image(size: int, more: int = 0) -> Callable[..., Any]:
    """Takes squares of `size` to `size + more` pixels."""

    def function(x: Any) -> Any:
        if not all(size <= dim <= size + more for dim in x.shape[2:]):
            raise ValueError(f"{x.shape} is too {'small' if x.shape[2] < size else 'large'}")
        return x.mean((2, 3))

    return function


@pytest.mark.parametrize(
    ("function", "size"),
    [(image(32, 3), 32), (image(28, 7), 28), (image(30, 1), 30), (image(224), 224), (image(201), 201)],
)
def test_a_usual_size_is_found_before_another(function, size):
    told = report(function, guessed([-1, 3, -1, -1]))
    assert told["shapes"] == {"x": [1, 3, size, size]}
    assert not any(told["varying"]["x"])


def test_a_model_of_any_size_is_found_to_take_it():
    told = report(image(5, 9999), guessed([-1, 3, -1, -1]))
    assert told["varying"] == {"x": [False, False, True, True]}
    assert told["shapes"] == {"x": [1, 3, 5, 5]}


def test_a_size_at_which_rows_become_more_is_a_wrong_one():
    told = report(lambda x: x.reshape(-1, 2 * 32 * 32), guessed([-1, 2, -1, -1]))
    assert (told["batchable"], told["shapes"]) == (True, {"x": [1, 2, 32, 32]})


def test_what_is_known_of_a_guess_is_not_moved():
    told = report(lambda x: np.tanh(x) * 2, guessed([-1, 784]))
    assert told["varying"] == {"x": [False, False]}


def test_a_rank_at_which_rows_keep_apart_is_preferred():
    def attention(x: Any) -> Any:
        return x + x.mean(-2, keepdims=True)

    told = report(attention, guessed([-1, 4], [-1, -1, 4]))
    assert (told["batchable"], told["shapes"]) == (True, {"x": [1, 2, 4]})
    assert told["varying"] == {"x": [False, True, False]}


def test_the_other_rank_is_tried_where_the_first_does_not_run():
    def flat(x: Any, y: Any) -> Any:
        assert x.ndim == y.ndim == 1
        return x + y

    told = report(
        flat,
        guessed([-1, -1], [-1], datatype="INT64"),
        guessed([-1, -1], [-1], name="y", datatype="INT64"),
    )
    assert told["shapes"] == {"x": [1], "y": [1]}


def test_what_never_runs_says_how_often_it_was_tried():
    with pytest.raises(
        RuntimeError, match=r"none of 2\d\d guessed shapes runs; at \{'x': \[1, 3, 2, 2\]\}: ValueError"
    ):
        report(image(7919), guessed([-1, 3, -1, -1]))


def test_inputs_that_are_known_stay_as_they_are():
    shapes = list(guesses([guessed([-1, 4], [-1, -1, 4]), entry(2, 7, name="y")]))
    assert shapes[:2] == [{"x": [1, 4], "y": [2, 7]}, {"x": [1, 2, 4], "y": [2, 7]}]
