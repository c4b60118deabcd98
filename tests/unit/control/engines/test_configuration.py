from __future__ import annotations

import pytest

from naiad.config import pbtxt
from naiad.control.engines.configuration import Declared, generate, pinned_digests, quoted
from naiad.control.schema import TensorField


def tensor(name: str, *dims: int, dtype: str = "FP32", argument: str | None = None) -> TensorField:
    return TensorField(name=name, dtype=dtype, dims=list(dims), argument=argument)


def test_nothing_declared_and_nothing_there_leaves_all_to_detection():
    assert generate("m.v1", None, Declared()) is None


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([(-1, 1, 32, 32)], [(-1, 10)], ["max_batch_size: 32", "dims: [ 1, 32, 32 ]", "dims: [ 10 ]"]),
        ([(-1, 1, 32, 32)], [], ["max_batch_size: 32", "dims: [ 1, 32, 32 ]"]),
        ([], [(-1, 10)], ["max_batch_size: 32", "dims: [ 10 ]"]),
        ([(8, 1, 32, 32)], [(8, 10)], ["max_batch_size: 0", "dims: [ 8, 1, 32, 32 ]", "dims: [ 8, 10 ]"]),
        ([(-1, 4), (-1, 2)], [(-1, 1)], ["max_batch_size: 32", "dims: [ 4 ]", "dims: [ 2 ]", "dims: [ 1 ]"]),
    ],
)
def test_a_first_dim_of_minus_one_is_the_batch(inputs, outputs, expected):  # R10
    declared = Declared(
        inputs=tuple(tensor(f"i{n}", *dims) for n, dims in enumerate(inputs)),
        outputs=tuple(tensor(f"o{n}", *dims) for n, dims in enumerate(outputs)),
    )
    text = generate("m.v1", None, declared)
    assert text is not None
    for line in expected:
        assert line in text
    assert ("dynamic_batching" in text) == ("max_batch_size: 32" in text)


def test_an_existing_configuration_gets_the_directorys_name_only():
    existing = 'name: "old"\nbackend: "identity"\ninput {\n  name: "x"\n}\n'
    text = generate("m.v1", existing, Declared())
    assert text == 'name: "m.v1"\nbackend: "identity"\ninput {\n  name: "x"\n}\n\n'


def test_an_environment_is_a_parameter_with_its_lock():
    text = generate("m.v1", None, Declared(environment="small@" + "0a" * 16))
    assert text is not None
    message = pbtxt.parse(text, "config.pbtxt").message
    assert message.parameters["naiad.environment"].string_value == "small@" + "0a" * 16
    assert pinned_digests(text) == ["0a" * 16]
    assert pinned_digests('name: "small@0a0a0a0a"') == []


def test_names_are_written_as_literals():
    assert quoted('a"b\\c') == '"a\\"b\\\\c"'
    text = generate("m.v1", None, Declared(inputs=(tensor('x" } name: "y', -1, 2, argument='a"b'),)))
    assert text is not None
    assert text.count("\n") == 5
    assert r'string_value: "a\"b"' in text
