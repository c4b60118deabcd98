"""The module that Triton's Python models import: its names, its checks and Triton's texts."""

from __future__ import annotations

import ctypes
import enum
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import triton_python_backend_utils as pb_utils
from naiad_worker.backends import LoadSpec
from naiad_worker.triton import loading
from naiad_worker.triton import tensor as tensor_module
from naiad_worker.triton.request import InferenceRequest

from naiad.server.allowed import WORKER_PATH

BASE = {"name": "m", "max_batch_size": 0, "input": [], "output": []}


def config(**fields: Any) -> pb_utils.ModelConfig:
    return pb_utils.ModelConfig(json.dumps({**BASE, **fields}))


def received(meta: dict[str, Any] | None = None, *, cancelled: bool = False) -> InferenceRequest:
    raw = json.dumps(meta).encode() if meta is not None else b""
    tensor = pb_utils.Tensor("IN", np.zeros(1, np.float32))
    return InferenceRequest.received([tensor], raw, ["OUT"], lambda: cancelled)


# -- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(pb_utils.TRITON_STRING_TO_NUMPY))
def test_a_type_goes_there_and_back(name):
    kind = pb_utils.triton_string_to_numpy(name)
    number = pb_utils.numpy_to_triton_type(kind)
    assert np.dtype(pb_utils.triton_to_numpy_type(number)) == np.dtype(kind)


def test_strings_have_one_number_whatever_numpy_calls_them():
    assert {pb_utils.numpy_to_triton_type(kind) for kind in (np.object_, np.bytes_, "S3", "U3")} == {13}
    assert pb_utils.numpy_to_triton_type(np.complex64) is None
    assert pb_utils.triton_to_numpy_type(14) is None  # BF16


def test_strings_travel_as_length_and_bytes():
    array = np.array(["ä", b"\x00\x01", ""], dtype=object)
    raw = pb_utils.serialize_byte_tensor(array)
    assert raw == b"\x02\x00\x00\x00\xc3\xa4\x02\x00\x00\x00\x00\x01\x00\x00\x00\x00"
    assert pb_utils.deserialize_bytes_tensor(raw).tolist() == ["ä".encode(), b"\x00\x01", b""]
    assert pb_utils.deserialize_bytes_tensor(np.frombuffer(raw, np.uint8)).tolist() == ["ä".encode(), b"\x00\x01", b""]


def test_what_is_no_string_is_not_serialized():
    assert pb_utils.serialize_byte_tensor(np.zeros(2, np.float32)) is None
    assert pb_utils.serialize_byte_tensor(np.array([], dtype=object)) is None


@pytest.mark.parametrize("raw", [b"\x02\x00\x00\x00a", b"\x01\x00\x00", b"\xff\xff\xff\xff"])
def test_strings_that_break_off_are_refused(raw):
    with pytest.raises(ValueError, match="break off"):
        pb_utils.deserialize_bytes_tensor(raw)


# -- tensors ----------------------------------------------------------------------------------------------------------


def test_a_tensor_keeps_its_array():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    tensor = pb_utils.Tensor("X", array)
    assert tensor.as_numpy() is array
    assert (tensor.name(), tensor.shape(), tensor.triton_dtype(), tensor.is_cpu()) == ("X", [2, 3], 7, True)


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        ("", np.zeros(1), "Tensor name cannot be an empty string."),
        (
            "X",
            np.zeros(1, np.complex64),
            "NumPy dtype is not supported. Tensor 'X': arrays of complex64 have no v2 datatype",
        ),
    ],
)
def test_a_tensor_that_cannot_be(name, array, text):
    with pytest.raises(pb_utils.TritonModelException, match=text):
        pb_utils.Tensor(name, array)


def test_a_list_is_no_tensor():
    with pytest.raises(TypeError, match="tensor 'X': expected a numpy array, got list"):
        pb_utils.Tensor("X", [1, 2])


def test_dlpack_shares_memory():
    array = np.arange(4, dtype=np.float32)
    back = pb_utils.Tensor.from_dlpack("Y", pb_utils.Tensor("X", array))
    array[0] = 7
    assert back.as_numpy().tolist() == [7, 1, 2, 3]
    capsule = pb_utils.Tensor("X", array).to_dlpack()
    assert pb_utils.Tensor.from_dlpack("Y", capsule).as_numpy().tolist() == [7, 1, 2, 3]
    with pytest.raises(pb_utils.TritonModelException, match="consumed already"):
        pb_utils.Tensor.from_dlpack("Y", capsule)


def test_dlpack_carries_bf16_between_frameworks(torch):
    there = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    tensor = pb_utils.Tensor.from_dlpack("X", there)
    assert tensor.triton_dtype() == 14
    with pytest.raises(pb_utils.TritonModelException, match=r"^Tensor dtype is BF16 and cannot be converted to numpy"):
        tensor.as_numpy()
    back = torch.utils.dlpack.from_dlpack(tensor.to_dlpack())
    assert back.dtype == torch.bfloat16
    assert back.tolist() == [1.5, -2.0]


def test_dlpack_refuses_what_it_cannot_carry(torch):
    with pytest.raises(pb_utils.TritonModelException, match="DLPack does not have support for string tensors"):
        pb_utils.Tensor("X", np.array(["a"], dtype=object)).to_dlpack()
    with pytest.raises(pb_utils.TritonModelException, match="DLPack tensor is not contiguous"):
        pb_utils.Tensor.from_dlpack("X", torch.zeros(2, 3).t())
    with pytest.raises(pb_utils.TritonModelException, match="Provided tensor is not supported"):
        pb_utils.Tensor.from_dlpack("X", [1])


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_dlpack_goes_through_torch_and_back(torch, kind):
    there = torch.ones([7], dtype=getattr(torch, kind))
    for given in (there, torch.utils.dlpack.to_dlpack(there)):
        tensor = pb_utils.Tensor.from_dlpack("X", given)
        assert tensor.as_numpy().tolist() == there.tolist()
        for back in (torch.utils.dlpack.from_dlpack(tensor.to_dlpack()), torch.from_dlpack(tensor)):
            assert back.dtype == there.dtype
            assert back.tolist() == there.tolist()
    assert tensor.__dlpack_device__() == there.__dlpack_device__()


def test_a_capsule_says_where_its_memory_lies(monkeypatch):
    """A machine without a GPU has none of its memory: one capsule is told to say that it is there."""
    capsule = pb_utils.Tensor("X", np.arange(4, dtype=np.float32)).to_dlpack()
    ctypes.c_int32.from_address(tensor_module._pointer(capsule) + 8).value = 2
    assert tensor_module._device_of(capsule) == 2
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # which would be handed it
    with pytest.raises(pb_utils.TritonModelException, match="on a GPU needs PyTorch: import torch in the model"):
        pb_utils.Tensor.from_dlpack("Y", capsule)
    ctypes.c_int32.from_address(tensor_module._pointer(capsule) + 8).value = 12
    with pytest.raises(pb_utils.TritonModelException, match="DLDevice type 12 is not support by Python backend"):
        pb_utils.Tensor.from_dlpack("Y", capsule)
    ctypes.c_int32.from_address(tensor_module._pointer(capsule) + 8).value = 1


def test_dlpack_names_a_numpy_that_is_too_old(monkeypatch):
    tensor = pb_utils.Tensor("X", np.zeros(1, np.float32))
    monkeypatch.delattr(np, "from_dlpack")
    text = rf"needs numpy 1\.22 or later in the model's environment, got {np.__version__}"
    for call in (tensor.to_dlpack, lambda: pb_utils.Tensor.from_dlpack("Y", tensor)):
        with pytest.raises(pb_utils.TritonModelException, match=text):
            call()


# -- requests and responses -------------------------------------------------------------------------------------------


def test_a_request_says_what_the_client_said():
    parameters = {"sequence_id": 7, "sequence_start": True, "sequence_end": False, "lang": "de"}
    meta = {"id": "r1", "parameters": parameters, "traceparent": "00-ab-cd-01", "timeout": 5, "priority": 2}
    request = received({**meta, "outputs": ["ONE"]})
    assert request.request_id() == "r1"
    assert (request.correlation_id(), request.flags()) == (7, pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)
    assert (request.timeout(), request.priority()) == (5, 2)
    assert json.loads(request.parameters()) == {"lang": "de"}
    assert json.loads(request.trace().get_context()) == {"traceparent": "00-ab-cd-01"}
    assert request.requested_output_names() == ["ONE"]
    assert pb_utils.get_input_tensor_by_name(request, "IN").name() == "IN"
    assert pb_utils.get_input_tensor_by_name(request, "OTHER") is None


def test_a_request_that_says_nothing_has_defaults():
    request = received()
    said = (request.request_id(), request.correlation_id(), request.flags(), request.parameters())
    assert said == ("", 0, 0, "")
    assert request.requested_output_names() == ["OUT"]
    assert request.trace().get_context() is None
    assert request.preferred_memory().preferred_memory_type() == pb_utils.TRITONSERVER_MEMORY_CPU
    assert received(cancelled=True).is_cancelled() is True


def test_a_response_carries_parameters_of_three_kinds():
    response = pb_utils.InferenceResponse(parameters={"a": True, "b": 1, "c": "x"})
    assert json.loads(response.parameters()) == {"a": True, "b": 1, "c": "x"}
    for value in (1.5, None, [1]):
        with pytest.raises(pb_utils.TritonModelException, match="Expect parameters values to have type bool/int/str"):
            pb_utils.InferenceResponse(parameters={"a": value})
    with pytest.raises(pb_utils.TritonModelException, match="Expect parameters keys"):
        pb_utils.InferenceResponse(parameters={1: 1})


def test_a_response_holds_tensors_and_an_error():
    tensor = pb_utils.Tensor("OUT", np.zeros(1))
    response = pb_utils.InferenceResponse([tensor], pb_utils.TritonError("no", pb_utils.TritonError.NOT_FOUND))
    assert response.has_error()
    assert (response.error().message(), response.error().code()) == ("no", 2)
    assert pb_utils.get_output_tensor_by_name(response, "OUT") is tensor
    assert pb_utils.TritonError("no").code() == pb_utils.TritonError.INTERNAL
    with pytest.raises(TypeError, match="expected tensors, got ndarray"):
        pb_utils.InferenceResponse([np.zeros(1)])
    for given in (None, tensor, 3):
        with pytest.raises(TypeError, match=f"expected a list of tensors, got {type(given).__name__}"):
            pb_utils.InferenceResponse(given)
    with pytest.raises(TypeError, match="expected a TritonError, got str"):
        pb_utils.InferenceResponse(error="no")
    with pytest.raises(pb_utils.TritonModelException, match="expected a code of 0 to 7"):
        pb_utils.TritonError("no", 9)


def test_a_sender_takes_one_response():
    sender = received().get_response_sender()
    response = pb_utils.InferenceResponse()
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    refused = {
        "Unsupported flag provided": (response, 8),
        "must be provided when the response flags is set to zero": (None, 0),
        "cannot send complete final before sending a response": (None, final),
    }
    for text, (what, flags) in refused.items():
        with pytest.raises(pb_utils.TritonModelException, match=text):
            sender.send(what, flags)
    sender.send(response)
    with pytest.raises(pb_utils.TritonModelException, match="cannot send more than one response"):
        sender.send(response)
    sender.send(flags=final)
    with pytest.raises(pb_utils.TritonModelException, match="Response sender has been closed"):
        sender.send(flags=final)


def test_what_comes_later_says_so():
    request = InferenceRequest(model_name="other", requested_output_names=["OUT"], inputs=[])
    calls = [
        request.exec,
        lambda: request.async_exec().send(None),
        lambda: request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE),
        lambda: pb_utils.load_model("other"),
        lambda: pb_utils.unload_model("other"),
        lambda: pb_utils.is_model_ready("other"),
    ]
    for call in calls:
        with pytest.raises(pb_utils.TritonModelException, match=r"come.* with a later version of Naiad"):
            call()


# -- configurations ---------------------------------------------------------------------------------------------------

X = {"name": "X", "data_type": "TYPE_FP32", "dims": [3]}


def test_a_model_completes_its_configuration():
    done = config(max_batch_size=2)
    done.set_max_batch_size(4)
    done.set_dynamic_batching()
    done.add_input({**X, "optional": True})
    done.add_output({**X, "name": "Y"})
    done.set_model_transaction_policy({"decoupled": False})
    assert done.as_dict() == {
        "name": "m",
        "max_batch_size": 4,
        "input": [{**X, "optional": True}],
        "output": [{**X, "name": "Y"}],
        "dynamic_batching": {},
        "model_transaction_policy": {"decoupled": False},
    }


def test_what_is_written_is_completed_and_kept():
    done = config(input=[{"name": "X", "data_type": "TYPE_INVALID", "dims": [], "format": "FORMAT_NONE"}])
    done.add_input(X)
    assert done.as_dict()["input"] == [{**X, "format": "FORMAT_NONE"}]
    done.add_input({**X, "dims": (3,)})


IN_M = "in auto-complete-config function for model 'm'"
REFUSED = {
    "batch": (
        {"max_batch_size": 8}, lambda c: c.set_max_batch_size(4),
        f"configuration specified max_batch_size 8, but {IN_M} specified max_batch_size 4",
    ),
    "scheduler": (
        {"sequence_batching": {}}, lambda c: c.set_dynamic_batching(),
        "Configuration specified scheduling_choice as 'sequence_batching', but auto-complete-config function for model "
        "'m' tries to set scheduling_choice as 'dynamic_batching'",
    ),
    "property": (
        {}, lambda c: c.add_input({**X, "shape": [1]}),
        f"input 'X' {IN_M} contains property other than 'name', 'data_type', 'dims' and 'optional'.",
    ),
    "optional output": (
        {}, lambda c: c.add_output({**X, "optional": True}),
        f"output 'X' {IN_M} contains property other than 'name', 'data_type' and 'dims'.",
    ),
    "no name": ({}, lambda c: c.add_input({"dims": [1]}), f"input {IN_M} is missing 'name' property."),
    "no type": ({}, lambda c: c.add_input({"name": "X"}), f"input 'X' {IN_M} is missing 'data_type' property."),
    "no dims": (
        {}, lambda c: c.add_output({"name": "X", "data_type": "TYPE_FP32"}),
        f"output 'X' {IN_M} is missing 'dims' property.",
    ),
    "type": (
        {"input": [X]}, lambda c: c.add_input({**X, "data_type": "TYPE_INT8"}),
        "unable to load model 'm', configuration expects datatype TYPE_FP32 for input 'X', model provides TYPE_INT8",
    ),
    "dims": (
        {"output": [X]}, lambda c: c.add_output({**X, "dims": [4]}),
        "model 'm', tensor 'X': the model expects dims [4] but the model configuration specifies dims [3]",
    ),
    "optional": (
        {"input": [{**X, "optional": False}]}, lambda c: c.add_input({**X, "optional": True}),
        "model 'm', tensor 'X': the model expects optional True but the model configuration specifies optional False",
    ),
    "policy": (
        {}, lambda c: c.set_model_transaction_policy({"other": 1}),
        f"model transaction property {IN_M} contains property other than 'decoupled'.",
    ),
    "decoupled": (
        {"model_transaction_policy": {"decoupled": True}},
        lambda c: c.set_model_transaction_policy({"decoupled": False}),
        "trying to change decoupled property in auto-complete-config for model 'm', which is already set to 'True'.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_contradiction_has_tritons_text(case):
    fields, act, text = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        act(config(**fields))
    assert str(caught.value) == text


def test_a_configuration_is_looked_into():
    document = {**BASE, "input": [X], "model_transaction_policy": {"decoupled": True}}
    assert pb_utils.get_input_config_by_name(document, "X") == X
    assert pb_utils.get_input_config_by_name(document, "Y") is None
    assert pb_utils.get_output_config_by_name(document, "X") is None
    assert pb_utils.using_decoupled_model_transaction_policy(document) is True
    assert pb_utils.using_decoupled_model_transaction_policy(BASE) is False


# -- log and metrics --------------------------------------------------------------------------------------------------


def test_a_log_line_has_its_level_and_place(capsys, monkeypatch):
    monkeypatch.delenv("WORKER_LOG_VERBOSE", raising=False)
    pb_utils.Logger.log_warn("hot")
    pb_utils.Logger.log("plain")
    pb_utils.Logger.log("bad", pb_utils.Logger.ERROR)
    pb_utils.Logger.log_verbose("unseen")
    monkeypatch.setenv("WORKER_LOG_VERBOSE", "1")
    pb_utils.Logger.log_verbose("seen")
    pb_utils.Logger.log_info("two\nlines")
    lines = capsys.readouterr().err.splitlines()
    assert [line[:2] + line.split(": ")[-1] for line in lines[:5]] == [
        "\x01Whot", "\x01Iplain", "\x01Ebad", "\x01Vseen", "\x01Itwo",
    ]  # fmt: skip
    assert lines[5] == "\x01Ilines"
    assert all("test_triton_utils.py:" in line for line in lines[:5])


@pytest.fixture
def told(monkeypatch):
    """A book of its own for the metrics, and what is told of it when it is asked to."""
    from naiad_worker.triton import metrics

    book = metrics._Book()
    monkeypatch.setattr(metrics, "_book", book)
    monkeypatch.setattr(book, "_rouse", lambda: None)
    messages = []
    book.connect(messages.append)

    def take():
        messages.clear()
        book.flush()
        return {family["name"]: family["metrics"] for message in messages for family in message["families"]}

    return take


def test_metrics_keep_their_values_and_tell_what_changed(told):
    family = pb_utils.MetricFamily(name="n", description="d", kind=pb_utils.MetricFamily.COUNTER)
    counter = family.Metric(labels={"a": "b"})
    counter.increment(2)
    assert family.Metric(labels={"a": "b"}).value() == 2
    gauge = pb_utils.MetricFamily(name="g", description="d", kind=pb_utils.MetricFamily.GAUGE).Metric()
    gauge.set(5)
    gauge.increment(-1)
    assert gauge.value() == 4
    histogram = pb_utils.MetricFamily(name="h", description="d", kind=pb_utils.MetricFamily.HISTOGRAM)
    metric = histogram.Metric(buckets=[1.0, 2.0, float("inf")])
    for seen in (1.0, 1.5, float("nan")):
        metric.observe(seen)
    first = told()
    assert first["n"] == [{"labels": {"a": "b"}, "add": "2.0"}]
    assert [{**change, "at": 0} for change in first["g"]] == [{"labels": {}, "set": "4.0", "at": 0}]
    assert first["h"] == [{"labels": {}, "bounds": ["1.0", "2.0"], "counts": [1, 1, 1], "sum": "nan"}]
    gauge.increment(0.5)
    counter.increment(1)
    assert told() == {"g": [{"labels": {}, "add": "0.5"}], "n": [{"labels": {"a": "b"}, "add": "1.0"}]}
    assert told() == {}
    assert pb_utils.MetricFamily("n", "", pb_utils.MetricFamily.COUNTER).Metric({"a": "b"}).value() == 3
    refused = [
        lambda: counter.increment(-1), lambda: counter.set(1), lambda: counter.observe(1), lambda: gauge.observe(1),
        lambda: metric.increment(1), metric.value, lambda: family.Metric(buckets=[1.0]), histogram.Metric,
        lambda: histogram.Metric(buckets=[2.0, 1.0]), lambda: counter.increment(float("nan")),
        lambda: histogram.Metric(buckets=[1.0]), lambda: histogram.Metric(buckets=[float("nan")]),
        lambda: histogram.Metric(labels={"le": "1"}, buckets=[1.0]), lambda: histogram.Metric(buckets=range(101)),
        lambda: family.Metric(labels={"__name__": "x"}), lambda: family.Metric(labels={"a": "x" * 2048}),
        lambda: pb_utils.MetricFamily("n", "d", pb_utils.MetricFamily.GAUGE),
        lambda: pb_utils.MetricFamily("x" * 2049, "", pb_utils.MetricFamily.GAUGE),
    ]  # fmt: skip
    for act in refused:
        with pytest.raises(pb_utils.TritonModelException):
            act()


def test_all_names_of_the_module_are_there():
    assert set(pb_utils.__all__) <= set(dir(pb_utils))
    assert (WORKER_PATH / "triton_python_backend_utils.py").is_file()


@pytest.mark.parametrize(
    ("device", "kind", "number"),
    [({"kind": "cpu"}, "CPU", "0"), ({"kind": "cuda", "id": 3}, "GPU", "3"), ({"kind": "model"}, "MODEL", "0")],
)
def test_a_model_is_told_where_it_runs(tmp_path, device, kind, number):
    spec = LoadSpec("m", 1, 0, str(tmp_path / "m" / "1"), "model.py", {}, device, 1)
    told = loading.arguments(spec, "m_0")
    assert (told["model_instance_kind"], told["model_instance_device_id"]) == (kind, number)
    assert told["model_repository"] == str(tmp_path / "m")


# -- documentation ----------------------------------------------------------------------------------------------------


def test_every_public_name_is_documented():
    text = (Path(__file__).parents[3] / "docs/reference/python-api.md").read_text("utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    documented = {
        name for row in rows for code in re.findall("`([^`]+)`", " ".join(row)) for name in re.findall(r"\w+", code)
    }
    public = set(pb_utils.__all__)
    for cls in (getattr(pb_utils, name) for name in pb_utils.__all__):
        if isinstance(cls, type) and not issubclass(cls, enum.Enum):
            public |= {name for name in vars(cls) if not name.startswith("_")}
    assert public - documented == {"received", "of", "on_host", "close", "take"}, "what belongs to the worker alone"
