"""Model directories that cannot be served, each with the code, the evidence and the fix that tell why."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import estimators
from tests.support.estimators import parameters
from tests.support.wire_bytes import block
from tests.unit.signature.archives import CODE, members, record, tensor

Files = Mapping[str, bytes]

ROOT = Path(__file__).resolve().parents[2]
MNIST = ROOT / "examples/mnist/model-repo/mnist-cnn/1/model.pt"
PAGE = b"<!DOCTYPE html><html><title>model.pt at main</title></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"
CANARY = b"cposix\nsystem\n(S'touch canary'\ntR."
"""A pickle that runs a command when it is opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """One directory and what everybody says of it."""

    files: Files | Callable[[], Files]
    """Content below the model's directory; made when it is asked for where it takes a framework."""
    code: str
    cause: str
    """A part of the evidence."""
    fix: str
    """A part of what to do, which stands in the fix or, for a written configuration, in the cause."""
    config: str = ""
    """config.pbtxt."""
    inspect: bool = True
    """Whether `naiad inspect` can see it, which runs nothing."""
    backend: str = "pytorch"
    """Whose framework it takes; the row waits where this backend is not served yet."""
    modules: tuple[str, ...] = field(default=())
    """What has to be installed to make or to load it."""

    def write(self, folder: Path) -> None:
        """The model's directory."""
        folder.mkdir(parents=True)
        for name, content in (self.files() if callable(self.files) else self.files).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name.endswith("/") else path.write_bytes(content)
        if self.config:
            (folder / "config.pbtxt").write_text(self.config)


def zipped(content: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


# A trace of forward(x) with an FP32 example of [1, 4], without torch.
ONE = CODE.replace("image: Tensor,\n    mask: Optional[Tensor]=None) -> Tuple[Tensor, Tensor]", "x: Tensor) -> Tensor")
ONE = ONE.replace("return (image, image)", "return x")
TRACED = zipped(members(code=ONE, traced=record(tensor("torch.FloatStorage", (1, 4)))))
STATE_DICT = zipped({"m/data.pkl": b"\x80\x02ccollections\nOrderedDict\n)R.", "m/data/0": b"1234"})
MODULE = zipped({"m/data.pkl": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", "m/data/0": b"1234"})
SAFETENSORS = struct.pack("<Q", 14) + b'{"w":{"a": 1}}'
LLAMA = json.dumps({"architectures": ["LlamaForCausalLM"]}).encode()
INPUT = 'input {{ name: "x" data_type: {0} dims: [ {1} ] }}'


def _traced(body: str) -> bytes:
    """A trace of forward(x) that returns something else."""
    code = ONE.replace("return x", f"return {body}")
    return zipped(members(code=code, traced=record(tensor("torch.FloatStorage", (1, 4)))))


def _lone(file: str, content: bytes) -> Files:
    return {f"1/{file}": content}


def _forest() -> Files:
    import skops.io
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=2, random_state=0).fit(*estimators.iris())
    return _lone("model.skops", skops.io.dumps(forest))


def _onnx(*, domain: str = "", opset: int = 13, ir: int = 8) -> bytes:
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    node = helper.make_node("Relu" if not domain else "Frobnicate", ["x"], ["y"], domain=domain)
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString())


def _saved_model() -> bytes:
    """saved_model.pb of a model with one signature, x to y, and with variables."""
    tensor_info = block(1, b"x:0") + b"\x10\x01" + block(3, block(2, b"\x08\x04"))
    tensors = [block(at, block(1, name) + block(2, tensor_info)) for at, name in ((1, b"x"), (2, b"y"))]
    signature = b"".join(tensors) + block(3, b"tensorflow/serving/predict")
    named = block(5, block(1, b"serving_default") + block(2, signature))
    return b"\x08\x01" + block(2, block(1, block(4, b"serve")) + block(3, b"") + named)


FILES: Mapping[str, Broken] = {
    "weights": Broken(
        files=_lone("model.pt", STATE_DICT),
        code="WEIGHTS_ONLY",
        cause="weights only (a state dict)",
        fix="torch.export.save",
    ),
    "module": Broken(
        files=_lone("model.pt", MODULE), code="UNSAFE_PICKLE", cause="a pickled module",
        fix='torch.load("model.pt", weights_only=False)',
    ),
    "pickle": Broken(
        files=_lone("model.pt", b"\x80\x04" + CANARY), code="UNSAFE_PICKLE", cause="is a pickle", fix="torch.jit.trace"
    ),
    "joblib": Broken(
        files=_lone("model.joblib", zlib.compress(b"\x80\x04" + CANARY)), code="UNSAFE_PICKLE", cause="is a pickle",
        fix="skops.io.dump",
    ),
    "empty": Broken(files=_lone("model.pt", b""), code="EMPTY_FILE", cause="'model.pt' is empty", fix="copy the file"),
    "pointer": Broken(files=_lone("model.pt", LFS), code="LFS_POINTER", cause="Git LFS pointer", fix="git lfs pull"),
    "page": Broken(files=_lone("model.pt", PAGE), code="NOT_A_MODEL", cause="is a web page", fix="download the file"),
    "cut": Broken(
        files=_lone("model.pt", TRACED[:300]), code="TRUNCATED", cause="breaks off (300 bytes)", fix="copy it again"
    ),
    "text": Broken(
        files=_lone("model.pt", b"hello world"), code="UNKNOWN_FORMAT", cause="none of the formats", fix="torch.jit"
    ),
    "archive": Broken(
        files=_lone("model.pt", zipped({"a/b.txt": b"x"})), code="UNKNOWN_FORMAT", cause="a zip archive but no model",
        fix="torch.jit.trace",
    ),
    "folder": Broken(
        files=_lone("model.pt/", b""), code="UNKNOWN_FORMAT", cause="'model.pt' is a folder",
        fix="name the model's file",
    ),
    "half skops": Broken(
        files=_lone("model.skops", zipped({"schema.json": b'{"__class__":'})), code="TRUNCATED",
        cause="its schema.json is not readable", fix="skops.io.dump", backend="sklearn",
    ),
    "other backend": Broken(
        files=_lone("model.skops", TRACED), code="BACKEND_MISMATCH", cause="which backend 'pytorch' runs",
        fix='write backend: "pytorch"', backend="sklearn",
    ),
}  # fmt: skip
"""What is wrong with the file itself."""

LATER: Mapping[str, Broken] = {
    "tflite": Broken(
        files=_lone("model.tflite", b"\x1c\0\0\0TFL3" + bytes(100)), code="FORMAT_NOT_SERVED",
        cause="'model.tflite' is a model of format TFLite", fix="later version",
    ),
    "openvino": Broken(
        files={"1/model.xml": b'<?xml version="1.0"?>\n<net name="m" version="11">\n', "1/model.bin": b""},
        code="FORMAT_NOT_SERVED", cause="'model.xml': OpenVINO models come with a later version",
        fix="serve the ONNX file",
    ),
    "gguf": Broken(
        files=_lone("model.gguf", b"GGUF\x03\0\0\0"), code="FORMAT_NOT_SERVED", cause="of format GGUF",
        fix="engine: vllm",
    ),
    "trees": Broken(
        files=_lone("model.json", b'{"learner":{"attributes":{}}}'), code="FORMAT_NOT_SERVED", cause="XGBoost",
        fix="later version",
    ),
    "llama": Broken(
        files={"1/config.json": LLAMA, "1/model.safetensors": SAFETENSORS}, code="FORMAT_NOT_SERVED",
        cause="'1' is a model of format Hugging Face", fix="engine: vllm",
    ),
    "adapter": Broken(
        files={"1/adapter_config.json": b'{"peft_type": "LORA"}', "1/adapter_model.safetensors": SAFETENSORS},
        code="FORMAT_NOT_SERVED", cause="of format LoRA adapter", fix="merge it into its base model",
    ),
    "vllm": Broken(
        files=_lone("model.json", b'{"model": "llama"}'), config='backend: "vllm"', code="VLLM_BACKEND_DEPRECATED",
        cause="language models are served by vLLM itself", fix="engine: vllm",
    ),
    "plan": Broken(
        files=_lone("model.plan", b"ftrt" + bytes(100)), code="FORMAT_NOT_SERVED", cause="'model.plan'",
        fix="serve the ONNX file",
    ),
}  # fmt: skip
"""Formats that are recognised and not served."""

CONFIGURED: Mapping[str, Broken] = {
    "no version": Broken(
        files={"model.pt": TRACED}, code="LAYOUT_NO_VERSION", cause="model", fix="1/model.pt"
    ),
    "no file": Broken(
        files={"1/": b""}, code="PATH_NOT_FOUND", cause="version folder '1' is empty", fix="'model.pt'"
    ),
    "another file": Broken(
        files=_lone("model.pt", TRACED), config='default_model_filename: "net.pt"', code="PATH_NOT_FOUND",
        cause="'1/net.pt' does not exist", fix='write default_model_filename: "model.pt"',
    ),
    "typo": Broken(
        files=_lone("model.pt", TRACED), config="max_batchsize: 4", code="CONFIG_INVALID",
        cause='no field named "max_batchsize"', fix="did you mean 'max_batch_size'?",
    ),
    "another name": Broken(
        files=_lone("model.pt", TRACED), config='name: "other"', code="CONFIG_INVALID",
        cause="name: expected the directory's name", fix="got 'other'",
    ),
    "unknown backend": Broken(
        files=_lone("model.pt", TRACED), config='backend: "pytroch"', code="CONFIG_INVALID",
        cause="backend 'pytroch': unknown", fix="'pytorch'",
    ),
    "rank": Broken(
        files=_lone("model.pt", TRACED), config=INPUT.format("TYPE_FP32", "1, 2, 2"), code="IO_MISMATCH",
        cause="input 'x': dims: expected 2 dims", fix="[1, 4]",
    ),
    "datatype": Broken(
        files=_lone("model.pt", TRACED), config=INPUT.format("TYPE_INT32", "1, 4"), code="DTYPE_MISMATCH",
        cause="input 'x': data_type: expected TYPE_FP32", fix="got TYPE_INT32",
    ),
    "features": Broken(
        files=lambda: _lone("model.skops", _plain_skops()), backend="sklearn", modules=("skops", "sklearn"),
        config='input { name: "input" data_type: TYPE_FP32 dims: [ 7 ] } max_batch_size: 4', code="IO_MISMATCH",
        cause="expected 2 dims with the batch as in the declared shape [-1, 4]", fix="got [-1, 7]",
    ),
}  # fmt: skip
"""Configurations and layouts that the file or the folder contradicts."""


def _plain_skops() -> bytes:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    return bytes(skops.io.dumps(LogisticRegression(max_iter=500).fit(*estimators.iris())))


RUN: Mapping[str, Broken] = {
    "shape": Broken(
        files=lambda: _lone("model.pt", MNIST.read_bytes()), inspect=False, modules=("torch",),
        config='input { name: "model_input" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] } max_batch_size: 4',
        code="IO_MISMATCH", cause="a dry run with zeros", fix="config.pbtxt",
    ),
    "complex": Broken(
        files=_lone("model.pt", _traced("torch.fft_rfft(x)")), inspect=False, modules=("torch",),
        code="IO_UNSUPPORTED", cause="arrays of complex64 have no v2 datatype", fix="real and the imaginary part",
    ),
    "frozen": Broken(
        files=_lone("model.pt", _traced("torch.view(x, [1, 4])")), inspect=False, modules=("torch",),
        code="BATCH_FROZEN",
        config='input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } max_batch_size: 4', cause="does not batch",
        fix="max_batch_size: expected 0",
    ),
    "operator": Broken(
        files=_lone("model.pt", _traced("ops.torchvision.nms(x, x, 0.5)")),
        inspect=False, modules=("torch",), code="MISSING_OP", cause="torchvision::nms", fix="registers the operator",
    ),
    "types": Broken(
        files=_forest, inspect=False, modules=("skops", "sklearn"), backend="sklearn", code="UNTRUSTED_TYPES",
        cause=estimators.TREE, fix="trusted_types",
    ),
    "no estimator": Broken(
        files=_lone("model.pkl", b"\x80\x04}."), inspect=False, modules=("joblib", "sklearn"), backend="sklearn",
        config=parameters(naiad__trust_pickle="true") + 'input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }',
        code="NOT_A_MODEL", cause="holds a dict", fix="fitted estimator",
    ),
    "no model": Broken(
        files=_lone("model.pkl", b"\x80\x04}."), inspect=False, modules=("joblib", "sklearn"), backend="sklearn",
        config=parameters(naiad__trust_pickle="true"), code="NOT_A_MODEL", cause="holds a dict", fix="fitted estimator",
    ),
    "onnx cut": Broken(
        files=lambda: _lone("model.onnx", _onnx()[:60]), modules=("onnx",), backend="onnxruntime", code="TRUNCATED",
        cause="'model.onnx'", fix="copy it again",
    ),
    "opset": Broken(
        files=lambda: _lone("model.onnx", _onnx(opset=99)), inspect=False, modules=("onnx", "onnxruntime"),
        backend="onnxruntime", code="OPSET_TOO_NEW", cause="99", fix="",
    ),
    "ir version": Broken(
        files=lambda: _lone("model.onnx", _onnx(ir=99)), inspect=False, modules=("onnx", "onnxruntime"),
        backend="onnxruntime", code="IR_TOO_NEW", cause="99", fix="",
    ),
    "custom operator": Broken(
        files=lambda: _lone("model.onnx", _onnx(domain="acme.ops")), inspect=False, modules=("onnx", "onnxruntime"),
        backend="onnxruntime", code="MISSING_OP", cause="Frobnicate", fix="",
    ),
    "no variables": Broken(
        files={"1/model.savedmodel/saved_model.pb": _saved_model(), "1/model.savedmodel/variables/": b""},
        backend="tensorflow", code="TRUNCATED", cause="variables", fix="copy the whole folder",
    ),
}  # fmt: skip
"""What only the framework finds, or whose backend may be absent."""

ALL: Mapping[str, Broken] = {**FILES, **LATER, **CONFIGURED, **RUN}
