"""`--backend-config`: what has an effect, what is taken without one and why, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from naiad.backends.registry import BACKENDS
from naiad.errors import ConfigError
from naiad.server.backend_config import NO_EFFECT, SETTINGS, parse


def size(name: str, *texts: str) -> int:
    return parse(texts).applied(BACKENDS[name]).max_batch_size


def test_a_default_batch_size_is_for_one_backend_or_for_all():
    default = BACKENDS["pytorch"].max_batch_size
    assert size("pytorch") == size("pytorch", "onnxruntime,default-max-batch-size=7") == default
    assert size("pytorch", "default-max-batch-size=7") == 7
    assert size("pytorch", "pytorch,default-max-batch-size=5", "default-max-batch-size=7") == 5
    assert size("identity", "pytorch,default-max-batch-size=5", "default-max-batch-size=0") == 0


def test_what_means_nothing_today_is_named_with_the_reason():
    texts = ("python,shm-default-byte-size=1048576", "onnxruntime,x=", "pytorch,default-max-batch-sizes=5", "dali,x=1")
    notes = parse((*texts, "max-batch-size=1", "onnxruntime,enable-global-threadpool=1")).notes
    reasons = [note.partition(" has no effect: ")[2] for note in notes[: len(texts)]]
    assert [note.partition("=")[2].partition(" ")[0] for note in notes[: len(texts)]] == list(texts)
    assert reasons == [
        "tensors travel in memory without a name, which is as large as they are",
        "backend 'onnxruntime' has no setting 'x'; there is default-max-batch-size, inter_op_thread_count, "
        "intra_op_thread_count, stub-timeout-seconds",
        "backend 'pytorch' has no setting 'default-max-batch-sizes'; did you mean 'default-max-batch-size'?",
        "there is no backend 'dali'; identity, onnxruntime, python, pytorch, repeat, sklearn, square, tensorflow are "
        "there",
    ]
    assert "there is no setting 'max-batch-size'; did you mean 'default-max-batch-size'?" in notes[4]
    assert "a worker has one session" in notes[5]


def test_threads_of_onnx_models_are_said_once_for_all():
    config = parse(["onnxruntime,intra_op_thread_count=3", "onnxruntime,inter_op_thread_count=2"])
    assert (config.threads("onnxruntime", "1"), config.threads("pytorch", "1")) == ("3", "1")
    assert config.told("onnxruntime") == {"inter_op_thread_count": "2"}
    assert parse(["onnxruntime,intra_op_thread_count=0"]).threads("onnxruntime", "1") == "auto"


def test_what_the_worker_reads_reaches_it_in_one_spelling():
    config = parse(
        ["tensorflow,allow-soft-placement=False", "tensorflow,gpu-memory-fraction=.5", "tensorflow,version=2"]
    )
    assert config.told("tensorflow") == {"allow-soft-placement": "0", "gpu-memory-fraction": "0.5", "version": "2"}
    assert config.told("pytorch") == {}


def test_a_start_may_take_as_long_as_is_said():
    config = parse(["python,stub-timeout-seconds=9", "stub-timeout-seconds=60"])
    assert (config.start_secs("python"), config.start_secs("tensorflow")) == (9, 60)
    assert parse([]).start_secs("python") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("onnxruntime,intra_op_thread_count=-1", "0 to 1024, got '-1'"),
        ("onnxruntime,inter_op_thread_count=1025", "0 to 1024, got '1025'"),
        ("tensorflow,allow-soft-placement=on", "0, 1, false or true, got 'on'"),
        ("tensorflow,gpu-memory-fraction=nan", "a fraction of 0 to 1, got 'nan'"),
        ("tensorflow,gpu-memory-fraction=1.5", "a fraction of 0 to 1, got '1.5'"),
        ("tensorflow,version=1", "2 (SavedModels of TensorFlow 1 are served by TensorFlow 2), got '1'"),
        ("python,stub-timeout-seconds=0", "1 to 86400, got '0'"),
    ],
)
def test_a_value_that_cannot_be_is_refused(text, expected):
    with pytest.raises(ConfigError) as caught:
        parse([text])
    assert str(caught.value) == f"option --backend-config: {text.partition('=')[0]}: expected {expected}"


def test_a_value_may_hold_commas():
    (note,) = parse(["python,shm-region-prefix-name=a,b=c"]).notes
    assert note.startswith("option --backend-config=python,shm-region-prefix-name=a,b=c has no effect: tensors")


def test_every_setting_is_documented():
    """Each has its row in the table of the reference: in its backend's, or in that for every backend."""
    text = (Path(__file__).parents[3] / "docs/reference/backend-config.md").read_text("utf-8")
    documented = {
        cell
        for line in text.splitlines()
        if line.startswith("| `")
        for cell in re.findall("`([^`]+)`", line.split("|")[1])
    }
    spelled = {f"{backend},{name}" for backend, named in NO_EFFECT.items() for name in named}
    for backend, named in SETTINGS.items():
        spelled |= {f"{backend},{name}" if name not in SETTINGS[""] else name for name in named}
    assert documented == spelled


@pytest.mark.parametrize("text", ["", "pytorch", "pytorch,", "pytorch,x", ",x=1", "pytorch,=1"])
def test_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="expected <backend>,<setting>=<value>"):
        parse([text])


@pytest.mark.parametrize("value", ["", "-1", "x", "1.5", "٣", "2147483648"])
def test_a_batch_size_is_a_number(value):
    with pytest.raises(ConfigError, match="default-max-batch-size: expected 0 to 2147483647"):
        parse([f"pytorch,default-max-batch-size={value}"])
