"""An exported program as a function of its leaves: the answers and refusals of the module that torch makes of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
from naiad_worker.backends import LoadFailure, _torch_export  # noqa: E402 (it needs torch, too)
from naiad_worker.backends._torch_common import Place  # noqa: E402

BATCH = torch.export.Dim("batch", min=1, max=8)


class Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class Nested(torch.nn.Module):
    def forward(self, x: torch.Tensor, boxes: dict[str, torch.Tensor], scale: float, *, mask: torch.Tensor) -> Any:
        return {"sum": x + boxes["a"] * scale, "rest": [boxes["b"] * mask, (x * 2,)]}


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor, none: None, y: torch.Tensor) -> Any:
        return x + 1, y * 2


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x + self.count


def program(model: Any, *arguments: Any, **options: Any) -> Any:
    return torch.export.export(model.eval(), arguments, **options)


def plain() -> Any:
    return program(Plain(), torch.zeros(3, 4), dynamic_shapes={"x": {0: BATCH}})


def loaded(exported: Any, path: Any) -> Any:
    torch.export.save(exported, path)
    return _torch_export.load(Place(str(path), path.name, torch.device("cpu")))


def same(given: Any, expected: Any) -> None:
    torch.testing.assert_close(torch.utils._pytree.tree_leaves(given), torch.utils._pytree.tree_leaves(expected))


def test_structures_of_arguments_and_results_are_kept(tmp_path):
    x, a, b, mask = (torch.full((2,), float(value)) for value in (1, 2, 3, 4))
    keywords = {"mask": mask}
    runner = loaded(program(Nested(), x, {"a": a, "b": b}, 0.5, kwargs=keywords), tmp_path / "m.pt2")
    assert runner.arguments == ["x", "ARGS[1][a]", "ARGS[1][b]", "mask"]
    given, expected = runner.call([x, a, b, mask]), Nested()(x, {"a": a, "b": b}, 0.5, mask=mask)
    assert list(given) == ["sum", "rest"] and isinstance(given["rest"][1], tuple)
    same(given, expected)


def test_a_tuple_of_results_and_an_argument_that_is_none(tmp_path):
    x, y = torch.ones(2), torch.full((2,), 3.0)
    runner = loaded(program(Pair(), x, None, y), tmp_path / "m.pt2")
    same(runner.call([x, y]), (x + 1, y * 2))


def test_a_program_that_keeps_a_state_keeps_it(tmp_path):
    runner = loaded(program(Counting(), torch.zeros(2)), tmp_path / "m.pt2")
    assert [runner.call([torch.zeros(2)])[0].item() for _ in range(3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("sample", [True, False], ids=["sample", "no-sample"])
def test_what_the_range_does_not_hold_is_refused_as_torch_refuses_it(tmp_path, sample):
    exported = plain()
    if not sample:
        exported.example_inputs = None  # torch then checks the ranges before the graph, and not in it
    runner, module = loaded(exported, tmp_path / "m.pt2"), exported.module()
    same(runner.call([torch.ones(5, 4)]), module(torch.ones(5, 4)))
    for shape in ((9, 4), (3, 5)):
        with pytest.raises((AssertionError, RuntimeError)) as expected:
            module(torch.zeros(shape))
        with pytest.raises((AssertionError, RuntimeError)) as given:
            runner.call([torch.zeros(shape)])
        assert str(given.value) == str(expected.value)


def test_too_few_tensors_are_refused(tmp_path):
    runner = loaded(plain(), tmp_path / "m.pt2")
    with pytest.raises(ValueError, match="takes 1 tensors, got 0"):
        runner.call([])


def test_a_torch_that_is_too_old_says_so(tmp_path, monkeypatch):
    torch.export.save(plain(), tmp_path / "m.pt2")
    monkeypatch.setitem(sys.modules, "torch.export.pt2_archive._package", None)
    with pytest.raises(LoadFailure, match=r"does not read 'm.pt2': .* need torch 2.8 or later"):
        _torch_export.load(Place(str(tmp_path / "m.pt2"), "m.pt2", torch.device("cpu")))
