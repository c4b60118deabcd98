from __future__ import annotations

import os

import pytest

from naiad.config import pbtxt
from naiad.errors import ConfigError

# (text, message): each names line, column and cause.
BROKEN = {
    "unknown field": (
        'backend: "pytorch"\nmax_batchsize: 8\n',
        'config.pbtxt:2:1: Message type "inference.ModelConfig" has no field named "max_batchsize"; '
        "did you mean 'max_batch_size'? (in: max_batchsize: 8)",
    ),
    "unknown field inside": (
        'input {\n  name: "x"\n  datatype: TYPE_FP32\n}\n',
        'config.pbtxt:3:3: Message type "inference.ModelInput" has no field named "datatype"; '
        "did you mean 'data_type'? (in: datatype: TYPE_FP32)",
    ),
    "unknown enum value": (
        "input {\n  data_type: FP32\n}\n",
        'config.pbtxt:2:14: Enum type "inference.DataType" has no value named FP32; '
        "did you mean 'TYPE_FP32'? (in: data_type: FP32)",
    ),
    "text for a number": (
        'max_batch_size: "8"\n',
        'config.pbtxt:1:17: Couldn\'t parse integer: "8" (in: max_batch_size: "8")',
    ),
    "out of range": (
        "max_batch_size: 3000000000\n",
        "config.pbtxt:1:17: Value out of range: 3000000000 (in: max_batch_size: 3000000000)",
    ),
    "written twice": (
        "max_batch_size: 1\nmax_batch_size: 2\n",
        'config.pbtxt:2:17: Message type "inference.ModelConfig" should not have multiple "max_batch_size" fields '
        "(in: max_batch_size: 2)",
    ),
    "two schedulers": (
        "dynamic_batching { }\nsequence_batching { }\n",
        'config.pbtxt:2:1: Field "sequence_batching" is specified along with field "dynamic_batching", another member '
        'of oneof "scheduling_choice" for message type "inference.ModelConfig" (in: sequence_batching { })',
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_an_error_names_line_column_and_cause(text, message):
    with pytest.raises(ConfigError) as caught:
        pbtxt.parse(text, "config.pbtxt")
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ['input [\n  {\n    name: "x"\n', 'backend: "pytorch\n', "}", "input { name: "])
def test_a_text_that_breaks_off_says_where(text):
    with pytest.raises(ConfigError, match=r"^config\.pbtxt:\d+:\d+: "):
        pbtxt.parse(text, "config.pbtxt")


@pytest.mark.parametrize("depth", [200, 20_000])
def test_deep_nesting_is_refused_not_a_crash(depth):
    with pytest.raises(ConfigError, match=r"^config\.pbtxt:"):
        pbtxt.parse("optimization { cuda { graph_spec { input { value {" * depth, "config.pbtxt")


def test_written_defaults_are_told_from_absent_fields():
    partial = pbtxt.parse(
        '# max_batch_size: 8\nmax_batch_size: 0\nname: "backend: x"\ninput [{ name: "a" dims: [ 1 ] }]\n',
        "config.pbtxt",
    )
    assert partial.given == {"max_batch_size", "name", "input"}


def test_the_named_configuration_wins_over_config_pbtxt(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/fast.pbtxt").write_text('backend: "identity"')
    (tmp_path / "config.pbtxt").write_text('backend: "pytorch"')
    assert pbtxt.read(tmp_path, config_name="fast").message.backend == "identity"
    assert pbtxt.read(tmp_path, config_name="fast").source == "configs/fast.pbtxt"
    assert pbtxt.read(tmp_path, config_name="slow").message.backend == "pytorch"
    assert pbtxt.read(tmp_path, config_name=None).message.backend == "pytorch"


def test_no_configuration_is_an_empty_one(tmp_path):
    partial = pbtxt.read(tmp_path, config_name=None)
    assert (partial.given, partial.source) == (frozenset(), "")


def test_a_file_that_no_one_wrote_is_not_parsed(tmp_path):
    (tmp_path / "config.pbtxt").write_text("#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match=r"^config\.pbtxt: expected at most 1048576 bytes, got more"):
        pbtxt.read(tmp_path, config_name=None)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda path: path.symlink_to("gone"), "cannot be read: No such file or directory"),
        (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.mkdir(), ": expected a file, got a folder, a pipe or a device"),
        (os.mkfifo, ": expected a file, got a folder, a pipe or a device"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_not_left_out(tmp_path, make, cause):
    make(tmp_path / "config.pbtxt")
    with pytest.raises(ConfigError, match=rf"^config\.pbtxt ?{cause}"):
        pbtxt.read(tmp_path, config_name=None)


def test_a_mark_of_the_byte_order_is_no_text(tmp_path):
    (tmp_path / "config.pbtxt").write_bytes(b'\xef\xbb\xbfbackend: "identity"')
    assert pbtxt.read(tmp_path, config_name=None).message.backend == "identity"


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "config.pbtxt").write_bytes(b'backend: "\xff"')
    with pytest.raises(ConfigError, match=r"^config\.pbtxt: expected UTF-8 text, got byte 0xff$"):
        pbtxt.read(tmp_path, config_name=None)


def test_json_is_the_same_message():  # W67
    text = (
        '{"backend": "identity", "max_batch_size": 0, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]}'
    )
    partial = pbtxt.parse_json(text, "load parameter 'config'")
    same = pbtxt.parse('backend: "identity" input { name: "x" data_type: TYPE_FP32 dims: 4 }', "x")
    assert partial.message == same.message
    assert partial.given == {"backend", "max_batch_size", "input"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config:1:2: Expecting property name enclosed in double quotes"),
        ("[]", "config: expected a JSON object, got list"),
        ("3", "config: expected a JSON object, got int"),
        ('"x"', "config: expected a JSON object, got str"),
        ("null", "config: expected a JSON object, got NoneType"),
    ],
)
def test_broken_json_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        pbtxt.parse_json(text, "config")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ['{"max_batchsize": 1}', '{"max_batch_size": "x"}', '{"input": 3}', '{"input": [{"data_type": "FP32"}]}',
             '{"name": "\\ud800"}', '{"dims": NaN}', "[" * 100_000, '{"max_batch_size": ' + "9" * 5000 + "}"]
)  # fmt: skip
def test_json_of_the_wrong_shape_is_one_error_with_its_source(text):
    with pytest.raises(ConfigError, match=r"^load parameter 'config':"):
        pbtxt.parse_json(text, "load parameter 'config'")
