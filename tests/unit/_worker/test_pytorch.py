"""Parts of the pytorch backend that need no model: names of results, errors of the interpreter, few rows."""

from __future__ import annotations

import pytest
from naiad_worker.backends import LoadFailure, LoadSpec
from naiad_worker.backends._torch_common import named
from naiad_worker.backends._torch_script import operation, plain

FROZEN = """The following operation failed in the TorchScript interpreter.
Traceback of TorchScript, serialized code (most recent call last):
  File "code/__torch__.py", line 14, in forward
    image: Tensor) -> Tensor:
    head = self.head
    return (head).forward(image, )
            ~~~~~~~~~~~~~ <--- HERE
  File "code/__torch__/head.py", line 9, in forward
    x: Tensor) -> Tensor:
    return torch.view(x, [1, 16])
           ~~~~~~~~~~ <--- HERE

Traceback of TorchScript, original code (most recent call last):
/home/somebody/train.py(12): forward
    return x.view(1, 16)
           ~~~~~~ <--- HERE
RuntimeError: shape '[1, 16]' is invalid for input of size 32
"""


def test_the_operation_that_failed_is_the_innermost_of_the_files_own_code():
    assert operation(FROZEN) == "return torch.view(x, [1, 16])"
    assert operation("shape '[1, 16]' is invalid for input of size 32") == ""
    assert operation("<--- HERE") == ""


def test_an_error_of_the_interpreter_is_one_line_without_the_paths_of_who_saved_the_model():
    assert plain(FROZEN) == "shape '[1, 16]' is invalid for input of size 32 in `return torch.view(x, [1, 16])`"
    assert plain("shape '[1, 16]' is invalid for input of size 32") == ""


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (1, ["OUTPUT__0"]),
        ((1, 2), ["OUTPUT__0", "OUTPUT__1"]),
        ([1, None, 3], ["OUTPUT__0", "OUTPUT__2"]),
        ({"a": 1, 2: 3, "none": None}, ["a", "2"]),
        ({"a": 1, "b": [2, {"c": 3}, None]}, ["a", "RESULT[b][0]", "RESULT[b][1][c]"]),
        (((1, 2), 3), ["RESULT[0][0]", "RESULT[0][1]", "OUTPUT__1"]),
    ],
)
def test_results_of_any_structure_have_names(result, names):
    assert list(named(result, lambda value: value)) == names


def spec(**parameters: str) -> LoadSpec:
    given = {name: {"string_value": value} for name, value in parameters.items()}
    return LoadSpec("m", 1, 0, "", "model.pt", {"parameters": given}, {"kind": "cpu"}, 1)


class Torch:
    """As much of torch as settings touch; the process that runs the tests keeps its own."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self._C = self
        self.backends = type("Backends", (), {"cudnn": type("Cudnn", (), {"enabled": True})()})()

    def __getattr__(self, name: str):
        return lambda value: self.calls.append((name, value))


def test_parameters_reach_torch(capfd):
    from naiad_worker.backends._torch_settings import apply

    torch = Torch()
    settings = apply(
        spec(
            INTER_OP_THREAD_COUNT="3",
            INFERENCE_MODE="false",
            DISABLE_OPTIMIZED_EXECUTION="true",
            DISABLE_CUDNN="1",
            ENABLE_JIT_EXECUTOR="false",
            ENABLE_JIT_PROFILING="0",
            ENABLE_TENSOR_FUSER="true",
            ENABLE_NVFUSER="true",
            COLOUR="blue",
        ),
        torch,
    )
    assert (settings.inference_mode, settings.optimized, settings.clean_cache) == (False, False, False)
    assert torch.calls == [
        ("set_num_threads", 1),
        ("set_num_interop_threads", 3),
        ("_jit_set_profiling_executor", False),
        ("_jit_set_profiling_mode", False),
        ("_jit_set_texpr_fuser_enabled", True),
    ]
    assert torch.backends.cudnn.enabled is False
    said = capfd.readouterr().err
    assert "parameter COLOUR: the pytorch backend does not use it" in said
    assert "parameter ENABLE_NVFUSER: torch has no nvFuser" in said


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("INFERENCE_MODE", "on", "expected true or false, got 'on'"),
        ("INTER_OP_THREAD_COUNT", "many", "expected a number of threads, got 'many'"),
        ("INTER_OP_THREAD_COUNT", "9" * 50, "expected a number of threads"),
    ],
)
def test_a_parameter_with_a_wrong_value_is_refused(name, value, expected):
    from naiad_worker.backends._torch_settings import apply

    with pytest.raises(LoadFailure, match=expected):
        apply(spec(**{name: value}), Torch())


class Compiled:
    """A library that wants 4 rows at least; its result doubles them."""

    def __init__(self, result) -> None:
        self.rows: list[int] = []
        self._result = result

    def __call__(self, tensors):
        rows = tensors[0].shape[0]
        self.rows.append(rows)
        if rows < 4:
            raise RuntimeError(
                f"input_handles[0]: dim value is too small at 0, expected it to be >= 4, but got: {rows}\n"
            )
        return self._result(tensors[0])


def test_few_rows_are_filled_up_and_cut_again():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
    from naiad_worker.backends._torch_aoti import _Filled

    library = Compiled(lambda tensor: {"a": tensor * 2, "b": [tensor + 1, None]})
    call = _Filled(torch, library)
    for rows in (6, 2, 3, 5):
        given = torch.arange(rows * 3.0).reshape(rows, 3)
        result = call([given])
        assert result["a"].tolist() == (given * 2).tolist()
        assert result["b"][0].tolist() == (given + 1).tolist()
    assert library.rows == [6, 2, 4, 4, 5]  # the refusal is met once


@pytest.mark.parametrize("result", [lambda tensor: tensor.sum(), lambda tensor: tensor.sum(0)])
def test_what_does_not_follow_the_rows_is_not_filled_up(result):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
    from naiad_worker.backends._torch_aoti import _Filled

    with pytest.raises(RuntimeError, match="too small at 0"):
        _Filled(torch, Compiled(result))([torch.ones(2, 3)])
