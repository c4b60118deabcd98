"""ONNX files served without a configuration: the answers of onnxruntime itself, through stock clients."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.support import onnx_models, real_models
from tests.support.onnx_models import affine, model, node, one, save, value
from tests.support.repository import Repository
from tests.support.server import Serve, serve

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
onnx: Any = pytest.importorskip("onnx", reason=onnx_models.REASON)
ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'naiad[onnx]'")

Arrays = dict[str, np.ndarray]
EXPLICIT = "--model-control-mode=explicit"
NAMES = {np.dtype(object): "BYTES", np.dtype("f4"): "FP32", np.dtype("i4"): "INT32", np.dtype("i8"): "INT64"}


def infer(server: Serve, name: str, inputs: Arrays, protocol: str = "http", outputs: tuple[str, ...] = ()) -> Arrays:
    """What a stock client gets, by name of the output."""
    module = tritonclient.http if protocol == "http" else tritonclient.grpc
    given = []
    for tensor, array in inputs.items():
        made = module.InferInput(tensor, list(array.shape), NAMES[array.dtype])
        made.set_data_from_numpy(array)
        given.append(made)
    with module.InferenceServerClient(server.address if protocol == "http" else server.grpc) as client:
        wanted = [module.InferRequestedOutput(output) for output in outputs] or None
        answer = client.infer(name, given, outputs=wanted)
        metadata = client.get_model_metadata(name)
        told = metadata["outputs"] if protocol == "http" else metadata.outputs
        named = [output["name"] if protocol == "http" else output.name for output in told]
        return {output: answer.as_numpy(output) for output in outputs or named}


def direct(path: Path, inputs: Arrays) -> Arrays:
    """What onnxruntime answers in this process."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(zip([told.name for told in session.get_outputs()], session.run(None, inputs), strict=True))


def logged(server: Serve, fits: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Records of the log that fit; they may come a little after the answer."""
    return server.until(lambda: [r for r in server.records() if fits(r)], 10, "no such record")


# -- real models ------------------------------------------------------------------------------------------------------


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).random(shape, dtype=np.float32)


REAL: dict[str, Arrays] = {
    "silero-vad": {"input": draw(3, 576), "state": draw(2, 3, 128), "sr": np.array(16000, dtype=np.int64)},
    "magika": {"bytes": np.arange(2 * 2048, dtype=np.int32).reshape(2, 2048) % 257},
    "ocr-detector": {"x": draw(1, 3, 96, 160)},
    "ocr-recogniser": {"x": draw(2, 3, 48, 200)},
    "ocr-classifier": {"x": draw(3, 3, 48, 192)},
    "basic-pitch": {"serving_default_input_2:0": draw(1, 43844, 1)},
}


@pytest.fixture(scope="module")
def real(module_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    for name in REAL:
        module_repository.file(name, real_models.path(f"{name}.onnx").read_bytes(), file="model.onnx")
    with serve(module_repository.root, tmp_path_factory.mktemp("log") / "log") as server:
        yield server.wait_ready(110)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("name", REAL)
def test_a_real_model_answers_as_onnxruntime_does(real, name, protocol):
    expected = direct(real_models.path(f"{name}.onnx"), REAL[name])
    inputs = {tensor: array.reshape(1) if array.ndim == 0 else array for tensor, array in REAL[name].items()}
    got = infer(real, name, inputs, protocol)
    assert got.keys() == expected.keys()
    for output, array in expected.items():
        assert got[output].shape == array.shape
        np.testing.assert_allclose(got[output], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REAL)
def test_a_real_model_says_what_its_file_says(real, name):
    metadata = real.get(f"/v2/models/{name}").json
    graph = onnx.load(str(real_models.path(f"{name}.onnx"))).graph
    for told, file in ((metadata["inputs"], graph.input), (metadata["outputs"], graph.output)):
        expected = []
        for tensor in file:
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.type.tensor_type.shape.dim]
            expected.append((tensor.name, dims or [1]))
        assert [(tensor["name"], tensor["shape"]) for tensor in told] == expected
    assert metadata["platform"] == "onnxruntime"


def test_only_what_can_batch_is_batched(real):
    sizes = {name: real.get(f"/v2/models/{name}/config").json["max_batch_size"] for name in REAL}
    assert sizes == {name: 0 if name == "silero-vad" else 4 for name in REAL}
    config = real.get("/v2/models/silero-vad/config").json
    assert [(t["name"], t["dims"]) for t in config["input"]] == [
        ("input", [-1, -1]),
        ("state", [2, -1, 128]),
        ("sr", [1]),
    ]
    note = "no batching: the file declares no open first dimension for 'state'"
    assert logged(real, lambda r: r.get("model") == "silero-vad" and r["message"] == note)


# -- small models -----------------------------------------------------------------------------------------------------

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


def test_requests_are_merged_and_answered_each_with_its_own(repository, start):
    path = save(affine(), repository.root / "m/1/model.onnx")
    option = "--backend-config=onnxruntime,default-max-batch-size=6"
    server = start(option, environment={"TRITONSERVER_DELAY_SCHEDULER": "5"}).wait_ready()
    assert server.get("/v2/models/m/config").json["max_batch_size"] == 6
    rows = [ROW + at for at in range(5)]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda row: infer(server, "m", {"x": row})["y"], rows))
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_allclose(answer, direct(path, {"x": row})["y"])
    (stats,) = server.get("/v2/models/m/stats").json["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (5, 1)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_model_of_strings(repository, start, protocol):
    save(one("Identity", kind="STRING", shape=("N", 2)), repository.root / "echo/1/model.onnx")
    how = {"case_change_action": "LOWER", "is_case_sensitive": 0, "locale": "C.UTF-8", "stopwords": ["an"]}
    made = model(
        [node("StringNormalizer", "x", "y", **how)], [value("x", "STRING", ("N",))], [value("y", "STRING", ("M",))]
    )
    save(made, repository.root / "lower/1/model.onnx")
    (repository.root / "lower/config.pbtxt").write_text("max_batch_size: 0")
    server = start().wait_ready()
    texts = np.array([["a", "Ünïcode"], ["", "x" * 1000]], dtype=object)
    assert infer(server, "echo", {"x": texts}, protocol)["y"].tolist() == [[t.encode() for t in r] for r in texts]
    words = np.array(["An", "ONNX", "File"], dtype=object)
    assert infer(server, "lower", {"x": words}, protocol)["y"].tolist() == [b"onnx", b"file"]
    raw = np.array([[b"\xff\xfe", b""]], dtype=object)
    with pytest.raises(tritonclient.utils.InferenceServerException, match="input 'x': expected UTF-8 text, got"):
        infer(server, "echo", {"x": raw}, protocol)


def test_names_may_be_mapped_and_outputs_chosen(repository, start):
    nodes = [node("Sub", "a b", "y"), node("Add", "a b", "z")]
    save(model(nodes, [value("a"), value("b")], [value("y"), value("z")]), repository.root / "m/1/model.onnx")
    (repository.root / "m/config.pbtxt").write_text(
        """input [ { name: "minuend" }, { name: "b" } ] output { name: "y" }
        parameters { key: "naiad.argument.minuend" value { string_value: "a" } }"""
    )
    server = start().wait_ready()
    answer = infer(server, "m", {"b": ROW, "minuend": 3 * ROW})
    assert answer.keys() == {"y"}
    np.testing.assert_array_equal(answer["y"], 2 * ROW)


def test_a_configuration_of_triton_for_a_scalar_and_a_row_without_dims(repository, start):
    nodes = [node("Mul", "x factor", "y"), node("ReduceSum", "y axes", "sum", keepdims=0)]
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    scaled = model(nodes[:1], [value("x"), value("factor", shape=())], [value("y")])
    summed = model(nodes[1:], [value("y")], [value("sum", shape=("N",))], initializer=[axes])
    save(scaled, repository.root / "scaled/1/model.onnx")
    (repository.root / "scaled/config.pbtxt").write_text(
        'input [ { name: "x" dims: [ -1, 4 ] }, { name: "factor" data_type: TYPE_FP32 dims: [ 1 ] } ]'
    )
    save(summed, repository.root / "summed/1/model.onnx")
    server = start().wait_ready()
    factor = np.array([3], dtype=np.float32)
    np.testing.assert_array_equal(infer(server, "scaled", {"x": ROW, "factor": factor})["y"], 3 * ROW)
    (output,) = server.get("/v2/models/summed/config").json["output"]
    assert (output["dims"], output["reshape"]) == ([1], {"shape": []})
    rows = np.concatenate([ROW, 2 * ROW])
    np.testing.assert_array_equal(infer(server, "summed", {"y": rows})["sum"], [[6.0], [12.0]])


def test_bf16_goes_through_as_bits(repository, start):
    save(one("Identity", kind="BFLOAT16", opsets={"": 19}), repository.root / "m/1/model.onnx")
    server = start().wait_ready()
    answer = server.infer("m", [1.0, -2.5, 0.0, 3.0], name="x", datatype="BF16")
    assert (answer.status, answer.json["outputs"][0]["data"]) == (200, [1.0, -2.5, 0.0, 3.0])
    assert answer.json["outputs"][0]["datatype"] == "BF16"


@pytest.mark.parametrize("place", ["model.onnx", "weights.onnx", "model.onnx/model.onnx"])
def test_a_file_of_another_name_or_a_folder_with_its_weights(repository, start, place):
    path = repository.root / "m/1" / place
    weights = "/" in place
    save(onnx_models.external("w.data") if weights else affine(), path)
    if weights:
        (path.parent / "w.data").write_bytes(np.ones(4, dtype=np.float32).tobytes())
    server = start().wait_ready()
    np.testing.assert_array_equal(infer(server, "m", {"x": ROW})["y"], ROW + 1 if weights else 2 * ROW + 1)


def test_a_wrong_request_gets_the_protocols_text(repository, start):
    save(affine(), repository.root / "m/1/model.onnx")
    server = start().wait_ready()
    cases = {
        (1, 5): "unexpected shape for input 'x' for model 'm'. Expected [-1,4], got [1,5].",
        (5, 4): "inference request batch-size must be <= 4 for 'm'",
    }
    for shape, text in cases.items():
        with pytest.raises(tritonclient.utils.InferenceServerException) as caught:
            infer(server, "m", {"x": np.zeros(shape, dtype=np.float32)})
        assert text in caught.value.message()
    with pytest.raises(tritonclient.utils.InferenceServerException, match="inference input 'x' data-type is 'INT64'"):
        infer(server, "m", {"x": np.zeros((1, 4), dtype=np.int64)})


def test_an_error_of_the_model_is_one_answer(repository, start):
    made = model([node("Add", "a b", "y")], [value("a"), value("b", shape=("M", 4))], [value("y", shape=(None, 4))])
    save(made, repository.root / "m/1/model.onnx")
    (repository.root / "m/config.pbtxt").write_text("max_batch_size: 0")
    server = start().wait_ready()
    with pytest.raises(tritonclient.utils.InferenceServerException, match=r"running Add node.*2 by 3") as caught:
        infer(server, "m", {"a": np.zeros((2, 4), np.float32), "b": np.zeros((3, 4), np.float32)})
    assert str(repository.root) not in caught.value.message() and ".h:" not in caught.value.message()
    np.testing.assert_array_equal(infer(server, "m", {"a": ROW, "b": ROW})["y"], 2 * ROW)


# -- what cannot be served --------------------------------------------------------------------------------------------


def sequence() -> Any:
    kind = onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(1, ["N"]))
    return model([node("SequenceConstruct", "x", "y")], [value("x")], [onnx.helper.make_value_info("y", kind)])


def frozen() -> Any:
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [1, 4])
    return model([node("Reshape", "x shape", "y")], [value("x")], [value("y")], initializer=[shape])


def foreign() -> Any:
    made = [node("Frobnicate", "x", "y", domain="acme.ops")]
    return model(made, [value("x")], [value("y")], opsets={"": 17, "acme.ops": 1})


OPENVINO = 'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }'
MODE = 'parameters { key: "execution_mode" value { string_value: "2" } }'
# name → (model, config.pbtxt, stage, code, words of the cause, words of the fix)
BROKEN = {
    "ir": (lambda: affine(ir_version=99), "", "load", "IR_TOO_NEW", "IR version 99", "model.ir_version"),
    "opset": (lambda: affine(opsets={"": 99}), "", "load", "OPSET_TOO_NEW", "opset 99 of ai.onnx", "convert_version"),
    "operator": (foreign, "", "load", "MISSING_OP", "acme.ops.Frobnicate", "export the model again without it"),
    "sequence": (sequence, "", "signature", "IO_UNSUPPORTED", "output 'y' is a sequence", "zipmap"),
    "complex": (lambda: one("Identity", kind="COMPLEX64"), "", "signature", "IO_UNSUPPORTED", "complex64", "Cast"),
    "weights": (lambda: onnx_models.external("w"), "", "signature", "PATH_NOT_FOUND", "weights in 'w'", "beside"),
    "outside": (lambda: onnx_models.external("../w"), "", "signature", "PATH_REFUSED", "outside its folder", "beside"),
    "truncated": (lambda: affine().SerializeToString()[:60], "", "signature", "TRUNCATED", "damaged ONNX", "copy it"),
    "text": (lambda: b"not a model", "", "signature", "UNKNOWN_FORMAT", "none of the formats", "save the model"),
    "batch": (
        frozen, "max_batch_size: 4", "configuration",
        "BATCH_FROZEN", "does not batch (a run at batch 2", "write max_batch_size: 0"),
    "dims": (
        affine, 'input { name: "x" dims: [ -1, 5 ] }', "configuration",
        "IO_MISMATCH", "[-1, 4], got [-1, 5]", "dims: [ -1, 4 ]"),
    "type": (
        affine, 'input { name: "x" data_type: TYPE_INT64 }', "configuration",
        "DTYPE_MISMATCH", "TYPE_FP32", "data_type: TYPE_FP32"),
    "output": (affine, 'output [ { name: "y" }, { name: "z" } ]', "configuration", "CONFIG_INVALID", "gives 1 (y)", ""),
    "parameter": (affine, MODE, "load", "CONFIG_INVALID", "'execution_mode': expected 0 to 1, got '2'", "correct it"),
    "accelerator": (affine, OPENVINO, "load", "ENV_MISSING_BACKEND", "OpenVINO; it has", "onnxruntime-openvino"),
    "backend": (affine, 'backend: "pytorch"', "signature", "BACKEND_MISMATCH", "format ONNX", "onnxruntime"),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    repository = Repository(tmp_path_factory.mktemp("broken"))
    for name, (make, text, *_) in BROKEN.items():
        made = make()
        file = "model.pt" if "pytorch" in text else "model.onnx"
        repository.file(name, made if isinstance(made, bytes) else made.SerializeToString(), file=file)
        if text:
            (repository.root / name / "config.pbtxt").write_text(text)
    with serve(repository.root, tmp_path_factory.mktemp("log") / "log", EXPLICIT) as server:
        yield server


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_has_its_code_its_cause_and_its_fix(broken, name):
    _, _, stage, code, cause, fix = BROKEN[name]
    answer = broken.post(f"/v2/repository/models/{name}/load")
    (record,) = logged(broken, lambda r: r.get("model") == name and r["level"] == "error")
    assert answer.status == 400
    assert (record["stage"], record["code"]) == (stage, code)
    assert cause in record["cause"] and fix in record.get("fix", "")
    for text in (answer.error, broken.index()[name]["reason"]):
        assert cause in text
        assert str(broken.log.parent.parent) not in text
    assert broken.process.poll() is None
