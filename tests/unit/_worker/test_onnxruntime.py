"""The worker half of the backend `onnxruntime`: options by name, no guessed names, every datatype, errors in words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from naiad_worker import onnx_errors, onnx_options
from naiad_worker.backends import LoadFailure, LoadSpec
from naiad_worker.backends import onnxruntime as backend
from naiad_worker.tensors import Bf16Array, datatype_of

from tests.support import onnx_models
from tests.support.onnx_models import affine, model, node, one, save, value

onnx: Any = pytest.importorskip("onnx", reason=onnx_models.REASON)
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'naiad[onnx]'")


def spec(folder: Path, *, config: dict[str, Any] | None = None, device: str = "cpu", threads: int = 1) -> LoadSpec:
    return LoadSpec(
        model="m",
        version=1,
        instance=0,
        directory=str(folder),
        file="model.onnx",
        config=config or {},
        device={"kind": device, "id": 0},
        threads=threads,
    )


def loaded(folder: Path, made: Any, **more: Any) -> backend.Backend:
    save(made, folder / "model.onnx")
    return backend.Backend(spec(folder, **more))


def failure(folder: Path, made: Any, **more: Any) -> LoadFailure:
    with pytest.raises(LoadFailure) as caught:
        loaded(folder, made, **more)
    assert str(folder) not in str(caught.value)
    return caught.value


def table(*names: str, dims: tuple[int, ...] = (4,)) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": "FP32", "dims": list(dims)} for name in names]


def parameters(**texts: str) -> dict[str, Any]:
    return {"parameters": {name: {"string_value": text} for name, text in texts.items()}}


# -- execution --------------------------------------------------------------------------------------------------------


def test_an_input_is_read_in_place_and_the_output_is_right(tmp_path):
    worker = loaded(tmp_path, affine())
    worker.serve(table("x"), table("y"))
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    ((index, array),), text = worker.execute({0: rows})
    assert (index, text) == (0, b"")
    np.testing.assert_allclose(array, 2 * rows + 1)
    worker.finalize()


def test_only_wanted_outputs_come_in_the_order_of_the_configuration(tmp_path):
    nodes = [node("Neg", "x", "a"), node("Abs", "x", "b"), node("Exp", "x", "c")]
    worker = loaded(tmp_path, model(nodes, [value("x")], [value("a"), value("b"), value("c")]))
    rows = -np.ones((1, 4), dtype=np.float32)
    assert list(worker.probe({"x": rows})) == ["a", "b", "c"]
    worker.serve(table("x"), table("c", "a"))
    outputs, _ = worker.execute({0: rows})
    assert [(index, float(array[0, 0])) for index, array in outputs] == [(0, pytest.approx(np.exp(-1))), (1, 1.0)]


@pytest.mark.parametrize("argument", [False, True])
def test_an_input_has_its_own_name_or_that_of_its_argument(tmp_path, argument):
    made = model([node("Sub", "a b", "y")], [value("a"), value("b")], [value("y")])
    worker = loaded(tmp_path, made)
    inputs = table("b", "a")
    if argument:
        inputs = [{**entry, "name": name, "argument": entry["name"]} for entry, name in zip(inputs, "uv", strict=True)]
    worker.serve(inputs, table("y"))
    ones = np.ones((1, 4), dtype=np.float32)
    ((_, array),), _ = worker.execute({0: ones, 1: 3 * ones})
    assert array.tolist() == [[2.0] * 4]


def test_one_input_and_one_output_may_have_any_name(tmp_path):
    worker = loaded(tmp_path, affine())
    worker.serve(table("INPUT"), table("OUTPUT"))
    ((_, array),), _ = worker.execute({0: np.zeros((1, 4), dtype=np.float32)})
    assert array.tolist() == [[1.0] * 4]


WRONG_NAMES = {
    "input": (table("a", "c"), table("y"), "input 'c' names no input of the model; it has a, b"),
    "output": (table("a", "b"), table("y", "z"), "output 'z' names no output of the model; it has y"),
    "twice": (table("a", "a"), table("y"), "two inputs are the same input of the model"),
}


@pytest.mark.parametrize(("inputs", "outputs", "text"), WRONG_NAMES.values(), ids=WRONG_NAMES.keys())
def test_names_are_not_guessed(tmp_path, inputs, outputs, text):
    worker = loaded(tmp_path, model([node("Sub", "a b", "y")], [value("a"), value("b")], [value("y")]))
    with pytest.raises(LoadFailure) as caught:
        worker.serve(inputs, outputs)
    assert (str(caught.value), bool(caught.value.fix)) == (text, True)


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "DOUBLE", "INT8", "INT64", "UINT16", "UINT64", "BOOL"])
def test_values_keep_their_type(tmp_path, kind):
    worker = loaded(tmp_path, one("Identity", kind=kind))
    array = np.array([[0, 1, 1, 0]]).astype(onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, kind)))
    result = worker.probe({"x": array})["y"]
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


def test_bf16_bits_go_through(tmp_path):
    nodes = [node("Identity", "x", "y"), node("Cast", "x", "z", to=onnx.TensorProto.FLOAT)]
    outputs = [value("y", "BFLOAT16"), value("z")]
    worker = loaded(tmp_path, model(nodes, [value("x", "BFLOAT16")], outputs, opsets={"": 19}))
    bits = np.array([[0x3F80, 0x4000, 0xC040, 0]], dtype=np.uint16)
    results = worker.probe({"x": bits.view(Bf16Array)})
    assert datatype_of(results["y"]) == "BF16"
    np.testing.assert_array_equal(np.asarray(results["y"]), bits)
    assert results["z"].tolist() == [[1.0, 2.0, -3.0, 0.0]]
    empty = worker.probe({"x": bits[:0].view(Bf16Array)})
    assert empty["y"].shape == (0, 4)


def test_bytes_are_text_and_nothing_else(tmp_path):
    worker = loaded(tmp_path, one("Identity", kind="STRING", shape=("N",)))
    texts = np.array([b"a", "ü".encode(), b"", b"z\0z", "text"], dtype=object)
    assert worker.probe({"x": texts})["y"].tolist() == ["a", "ü", "", "z\0z", "text"]
    with pytest.raises(ValueError, match=r"^input 'x': expected UTF-8 text, got b'\\xff\\xfe'$"):
        worker.probe({"x": np.array([b"\xff\xfe"], dtype=object)})


def test_scalars_go_in_and_come_out_as_one_element(tmp_path):
    worker = loaded(tmp_path, one("Neg", shape=()))
    worker.serve(table("x", dims=()), table("y", dims=(1,)))
    ((_, array),), _ = worker.execute({0: np.array(3, dtype=np.float32)})
    assert array.tolist() == [-3.0]
    assert worker.probe({"x": np.array(3, dtype=np.float32)})["y"].shape == ()


def test_an_error_at_run_time_is_told_without_the_sources_of_onnxruntime(tmp_path):
    made = model([node("Add", "a b", "y")], [value("a"), value("b", shape=("M", 4))], [value("y", shape=(None, 4))])
    worker = loaded(tmp_path, made)
    with pytest.raises(RuntimeError) as caught:
        worker.probe({"a": np.zeros((2, 4), np.float32), "b": np.zeros((3, 4), np.float32)})
    assert "Add node" in str(caught.value)
    assert "2 by 3" in str(caught.value)
    for rest in (".h:", ".cc:", "onnxruntime_src", "ONNXRuntimeError"):
        assert rest not in str(caught.value)


# -- options ----------------------------------------------------------------------------------------------------------


def options(tmp_path: Path, config: dict[str, Any] | None = None, threads: int = 1) -> Any:
    return onnx_options.session_options(ort, spec(tmp_path, config=config, threads=threads))


def test_threads_are_those_of_the_instance_unless_written(tmp_path):
    plain = options(tmp_path, threads=3)
    assert (plain.intra_op_num_threads, plain.inter_op_num_threads) == (3, 3)
    assert plain.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    written = options(tmp_path, parameters(inter_op_thread_count="4"))
    assert (written.intra_op_num_threads, written.inter_op_num_threads) == (1, 4)
    settings = {"inter_op_thread_count": "5"}
    counts = [
        onnx_options.session_options(
            ort, spec(tmp_path, config=config)._replace(settings=settings)
        ).inter_op_num_threads
        for config in ({}, parameters(inter_op_thread_count="4"))
    ]
    assert counts == [5, 4]


def test_written_options_reach_the_session(tmp_path):
    config = parameters(
        execution_mode="1",
        enable_mem_arena="false",
        enable_mem_pattern="0",
        **{"session.disable_prepacking": "1", "naiad.argument.x": "y"},
    )
    made = options(tmp_path, {**config, "optimization": {"graph": {"level": 1}}})
    assert made.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert (made.enable_cpu_mem_arena, made.enable_mem_pattern) == (False, False)
    assert made.get_session_config_entry("session.disable_prepacking") == "1"
    assert made.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    default = options(tmp_path)
    assert default.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert (default.enable_cpu_mem_arena, default.enable_mem_pattern) == (True, True)


def test_parameters_without_a_meaning_are_named(tmp_path, capsys):
    names = (
        "session.disable_prepacking",
        "naiad.threads",
        "intra_op_thread_count",
        "gpu_mem_limit",
        "EXECUTION_ENV_PATH",
    )
    options(tmp_path, parameters(**dict.fromkeys(names, "1"), enable_memory_arena="1", TF_SIGNATURE_DEF="x"))
    assert capsys.readouterr().err.splitlines() == [
        "WARNING: parameter TF_SIGNATURE_DEF: the onnxruntime backend does not use it",
        "WARNING: parameter enable_memory_arena: the onnxruntime backend does not use it",
    ]


WRONG = {
    "threads": (parameters(inter_op_thread_count="99999"), "parameters 'inter_op_thread_count': expected 0 to"),
    "mode": (parameters(execution_mode="2"), "parameters 'execution_mode': expected 0 to 1, got '2'"),
    "arena": (parameters(enable_mem_arena="on"), "parameters 'enable_mem_arena': expected 0, 1, false or true, got 'o"),
    "pattern": (parameters(enable_mem_pattern="2"), "parameters 'enable_mem_pattern': expected 0, 1, false or true"),
    "level": ({"optimization": {"graph": {"level": 3}}}, "optimization.graph.level: expected -1, 0, 1, 2, got 3"),
}


@pytest.mark.parametrize(("config", "text"), WRONG.values(), ids=WRONG.keys())
def test_wrong_values_are_refused_by_name(tmp_path, config, text):
    error = failure(tmp_path, affine(), config=config)
    assert str(error).startswith(text)
    assert (error.fix, error.code) == ("correct it in config.pbtxt", "CONFIG_INVALID")


def accelerated(side: str, name: str, **told: str) -> dict[str, Any]:
    entry = {"name": name, "parameters": told}
    return {"optimization": {"execution_accelerators": {f"{side}_execution_accelerator": [entry]}}}


def test_an_unknown_accelerator_is_refused(tmp_path):
    error = failure(tmp_path, affine(), config=accelerated("cpu", "tensorrt"))
    assert str(error) == "cpu_execution_accelerator: expected openvino, got 'tensorrt'"


@pytest.mark.parametrize(
    ("device", "config", "name", "package"),
    [
        ("cuda", {}, "CUDA", "onnxruntime-gpu"),
        ("cuda", accelerated("gpu", "tensorrt"), "Tensorrt", "onnxruntime-gpu"),
        ("cpu", accelerated("cpu", "openvino"), "OpenVINO", "onnxruntime-openvino"),
    ],
)
def test_a_device_that_this_onnxruntime_lacks_is_named(tmp_path, device, config, name, package):
    with pytest.raises(LoadFailure) as caught:
        onnx_options.providers(["CPUExecutionProvider"], spec(tmp_path, config=config, device=device))
    assert str(caught.value) == f"this onnxruntime cannot run models by {name}; it has CPU"
    assert package in caught.value.fix
    assert caught.value.code == "ENV_MISSING_BACKEND"


def test_older_parameters_of_cuda_have_the_names_of_onnxruntime(tmp_path):
    every = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    older = parameters(
        cudnn_conv_algo_search="1", gpu_mem_limit="4294967200", arena_extend_strategy="0", do_copy_in_default_stream="1"
    )
    config = {**older, **accelerated("gpu", "cuda", gpu_mem_limit="5")}
    ((_, told), _) = onnx_options.providers(every, spec(tmp_path, config=config, device="cuda"))
    assert told == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": "5",  # an accelerator's own goes before
        "arena_extend_strategy": "kNextPowerOfTwo",
        "do_copy_in_default_stream": "1",
        "device_id": "0",
    }
    with pytest.raises(LoadFailure, match="parameters 'arena_extend_strategy': expected 0 to 1, got '2'"):
        onnx_options.providers(every, spec(tmp_path, config=parameters(arena_extend_strategy="2"), device="cuda"))


def test_tritons_names_for_tensorrt_become_those_of_onnxruntime(tmp_path):
    told = {"precision_mode": "INT8", "int8_calibration_table_name": "t", "int8_use_native_calibration_table": "1"}
    config = accelerated("gpu", "tensorrt", **told, trt_engine_cache_enable="1")
    every = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert onnx_options.providers(every, spec(tmp_path, config=config, device="cuda"))[0][1] == {
        "trt_int8_enable": "true",
        "trt_int8_calibration_table_name": "t",
        "trt_int8_use_native_calibration_table": "1",
        "trt_engine_cache_enable": "1",
        "device_id": "0",
    }


def test_devices_come_in_order_with_their_options(tmp_path):
    every = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"]
    config = accelerated("gpu", "tensorrt", precision_mode="FP16", max_workspace_size_bytes="1024")
    assert onnx_options.providers(every, spec(tmp_path, config=config, device="cuda")) == [
        (every[0], {"trt_fp16_enable": "true", "trt_max_workspace_size": "1024", "device_id": "0"}),
        (every[1], {"device_id": "0"}),
        (every[3], {}),
    ]
    assert onnx_options.providers(every, spec(tmp_path, config=config)) == [(every[3], {})]
    config = accelerated("cpu", "openvino", num_of_threads="2")
    assert onnx_options.providers(every, spec(tmp_path, config=config)) == [
        (every[2], {"num_of_threads": "2"}),
        (every[3], {}),
    ]


# -- what cannot be loaded --------------------------------------------------------------------------------------------


def test_a_newer_format_is_named_with_both_versions(tmp_path):
    error = failure(tmp_path, affine(ir_version=99))
    assert str(error).startswith(f"the model has IR version 99, and onnxruntime {ort.__version__} reads up to ")
    assert error.code == "IR_TOO_NEW"
    assert "model.ir_version = " in error.fix and "pip install -U onnxruntime" in error.fix


@pytest.mark.parametrize(("domain", "name"), [("", "ai.onnx"), ("ai.onnx.ml", "ai.onnx.ml")])
def test_a_newer_opset_is_named_with_both_versions(tmp_path, domain, name):
    error = failure(tmp_path, affine(opsets={"": 17, domain: 99}))
    start = f"the model has opset 99 of {name}, and onnxruntime {ort.__version__} has up to "
    assert str(error).startswith(start)
    assert error.code == "OPSET_TOO_NEW"
    assert ("convert_version" in error.fix) == (domain == "")


@pytest.mark.parametrize(("domain", "name"), [("acme.ops", "acme.ops.Frobnicate"), ("", "ai.onnx.Frobnicate")])
def test_an_operator_that_is_missing_is_named_with_its_domain(tmp_path, domain, name):
    made = model(
        [node("Frobnicate", "x", "y", domain=domain)], [value("x")], [value("y")], opsets={"": 17, "acme.ops": 1}
    )
    error = failure(tmp_path, made)
    assert str(error).startswith(f"the model uses operator {name}")
    assert str(error).endswith(f"which onnxruntime {ort.__version__} does not have")
    assert error.code == "MISSING_OP"
    assert error.fix.startswith("export the model again ")


def test_an_operator_without_an_implementation_for_its_types_is_named(tmp_path):
    made = model([node("Add", "x x", "y")], [value("x", "BFLOAT16")], [value("y", "BFLOAT16")])
    error = failure(tmp_path, made)
    assert "has no implementation of operator Add of opset 14 for the types" in str(error)
    assert error.code == "MISSING_OP"


def test_a_damaged_file_is_called_so(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a\x3a\x05hello")
    with pytest.raises(LoadFailure, match=r"^the file is no ONNX model, or a damaged one$") as caught:
        backend.Backend(spec(tmp_path))
    assert caught.value.code == "TRUNCATED"


def test_another_fault_keeps_the_words_of_onnxruntime(tmp_path):
    error = failure(tmp_path, model([node("Identity", "z", "y")], [value("x")], [value("y")]))
    assert str(error).startswith(
        f"onnxruntime {ort.__version__} cannot load 'model.onnx': Invalid model. Node input 'z'"
    )


@pytest.mark.parametrize("location", ["../secret", "link", "/etc/hostname"])
def test_onnxruntime_itself_stays_in_the_folder(tmp_path, location):
    """The reader has refused it before; this is the second lock."""
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "link").symlink_to(tmp_path / "secret")
    error = failure(tmp_path / "1", onnx_models.external(location))
    assert str(tmp_path) not in str(error)


@pytest.mark.parametrize("folder", ["model.onnx", "."])
def test_weights_beside_the_model_are_loaded(tmp_path, folder):
    where = tmp_path / folder
    save(onnx_models.external("w.data"), where / "model.onnx")
    (where / "w.data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    worker = backend.Backend(spec(tmp_path))
    assert worker.probe({"x": np.zeros((1, 4), np.float32)})["y"].tolist() == [[0.0, 1.0, 2.0, 3.0]]


def test_paths_and_sources_leave_the_text():
    source = "/onnxruntime_src/core/graph/model.cc:256 onnxruntime::Model::Model(const onnx::ModelProto&, const Path&)"
    text = f"[ONNXRuntimeError] : 1 : FAIL : Load model from /srv/m/1/model.onnx failed:{source} Bad thing at"
    text += " \"/srv/m/1/w.data\" in '/conv/Conv' (a/b, 1/2)\n"
    assert onnx_errors.plain(text) == "Bad thing at \"w.data\" in '/conv/Conv' (a/b, 1/2)"
