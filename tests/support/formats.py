"""One small model in every format, made and called directly: x FP32 [N, 1024] to y FP32 [N, 8], alike in all of them.

Frameworks are imported in a process of its own only: `python -m tests.support.formats NAME FOLDER ANSWERS` writes the
version folder and what the framework itself answers. A further format is one row of `FORMATS`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WIDE, NARROW = 1024, 8
"""A request of one row is 4 KB."""
BATCHES = (1, 3)
CALLS = 200
QUIET = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
Call = Callable[[np.ndarray], Any]
"""A loaded model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A row of the table: how a model of this format is made and called."""

    name: str
    label: str
    backend: str
    make: Callable[[Path], None]
    """Writes the version folder."""
    load: Callable[[Path], Call]
    """The model of a version folder, by the framework itself."""
    file: str = ""
    """The entry of the version folder; "" where there is none."""
    needs: tuple[str, ...] = ()
    """Modules."""
    fix: str = ""
    programs: tuple[str, ...] = ()
    """What it is made with, beside modules; the Debian package has the same name."""
    config: str = ""
    """Of formats of which the file does not say enough."""

    def absent(self) -> str:
        """Why it cannot be tried here; "" if it can."""
        from naiad.backends.registry import BACKENDS

        if self.backend not in BACKENDS:
            return f"this Naiad has no backend '{self.backend}'"
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if missing:
            return f"{missing[0]} is not installed: {self.fix}"
        lacking = [program for program in self.programs if shutil.which(program) is None]
        return f"{lacking[0]} is not here: apt-get install {lacking[0]}" if lacking else ""

    def write(self, model: Path) -> dict[int, np.ndarray]:
        """Writes a model directory; what the framework answers by batch size."""
        answers = model.parent.parent / f"{model.name}.npz"
        folder = model / "1"
        folder.mkdir(parents=True)
        if self.config:
            (model / "config.pbtxt").write_text(self.config)
        self.run(str(folder), str(answers))
        with np.load(answers) as file:
            return {int(name): file[name] for name in file.files}

    def run(self, *words: str) -> str:
        """Runs this module on this format in a process of its own; what it prints."""
        line = [sys.executable, "-W", "ignore", "-m", "tests.support.formats", self.name, *words]
        environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"{self.name}: {ended.stderr[-3000:]}")
        return ended.stdout


def without_machine(recognised: str) -> str:
    """A format's name without the machine that a package was compiled for: it is another one elsewhere."""
    return re.sub(r" \(cpu, .*\)$", "", recognised)


def rows(batch: int) -> np.ndarray:
    """The input of that many rows."""
    return np.random.default_rng(batch).uniform(-1, 1, (batch, WIDE)).astype(np.float32)


def weights() -> tuple[np.ndarray, np.ndarray]:
    """Weight [1024, 8] and bias [8]."""
    draw = np.random.default_rng(7)
    weight = draw.normal(0, WIDE**-0.5, (WIDE, NARROW)).astype(np.float32)
    return weight, draw.normal(0, 1, NARROW).astype(np.float32)


def _io(backend: str, batch: int, outputs: int, names: tuple[str, str]) -> str:
    given, taken = names
    return (
        f'backend: "{backend}"\nmax_batch_size: {batch}\n'
        f'input {{ name: "{given}" data_type: TYPE_FP32 dims: [ {WIDE} ] }}\n'
        f'output {{ name: "{taken}" data_type: TYPE_FP32 dims: [ {outputs} ] }}\n'
    )


# -- PyTorch ----------------------------------------------------------------------------------------------------------

_CLASS = f"""
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear({WIDE}, {NARROW})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x))
"""


def _net() -> Any:
    import torch

    names: dict[str, Any] = {"__name__": "net"}
    exec(_CLASS, names)  # the same text is the file of one format
    net = names["Net"]()
    weight, bias = weights()
    with torch.no_grad():
        net.linear.weight.copy_(torch.from_numpy(weight.T.copy()))
        net.linear.bias.copy_(torch.from_numpy(bias))
    return net.eval()


def _traced(folder: Path) -> None:
    import torch

    torch.jit.trace(_net(), torch.zeros(1, WIDE)).save(str(folder / "model.pt"))


def _scripted(folder: Path) -> None:
    import torch

    class Scripted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.jit.trace(_net(), torch.zeros(1, WIDE))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    torch.jit.save(torch.jit.script(Scripted()), str(folder / "model.pt"))


def _program() -> Any:
    import torch

    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(_net(), (torch.zeros(2, WIDE),), dynamic_shapes={"x": {0: batch}})


def _exported(folder: Path) -> None:
    import torch

    torch.export.save(_program(), folder / "model.pt2")


def _compiled(folder: Path) -> None:
    import torch

    torch._inductor.aoti_compile_and_package(_program(), package_path=str(folder / "model.pt2"))


def _class(folder: Path) -> None:
    import torch

    (folder / "model.py").write_text(_CLASS)
    torch.save(_net().state_dict(), folder / "model.pt")


def _by_torch(load: Callable[[Path], Any]) -> Callable[[Path], Call]:
    def loaded(folder: Path) -> Call:
        import torch

        torch.set_num_threads(1)
        model = load(folder)

        def call(x: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(x)).numpy()

        return call

    return loaded


def _load_torchscript(folder: Path) -> Any:
    import torch

    return torch.jit.load(str(folder / "model.pt"))


def _load_exported(folder: Path) -> Any:
    import torch

    return torch.export.load(folder / "model.pt2").module()


def _load_compiled(folder: Path) -> Any:
    import torch

    package = torch._inductor.aoti_load_package(str(folder / "model.pt2"))
    # torch compiles a dynamic batch for two rows and more.
    return lambda x: package(x) if len(x) > 1 else package(torch.cat([x, x]))[:1]


# -- ONNX, TensorFlow, scikit-learn -----------------------------------------------------------------------------------


def _onnx(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight, bias = weights()
    constants = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    nodes = [helper.make_node("Gemm", ["x", "weight", "bias"], ["sum"]), helper.make_node("Tanh", ["sum"], ["y"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDE])
    taken = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", NARROW])
    graph = helper.make_graph(nodes, "net", [given], [taken], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.save(made, str(folder / "model.onnx"))


def _load_onnx(folder: Path) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = str(folder / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["y"], {"x": x})[0]


def _tensorflow() -> Any:
    """The module, with one thread; that can be said before its first operation only."""
    fresh = "tensorflow" not in sys.modules
    import tensorflow as tf

    if fresh:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def _savedmodel(folder: Path) -> None:
    tf = _tensorflow()
    weight, bias = (tf.constant(array) for array in weights())
    spec = tf.TensorSpec([None, WIDE], tf.float32, name="x")
    module = tf.Module()
    module.run = tf.function(lambda x: {"y": tf.tanh(x @ weight + bias)}, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "model.savedmodel"), signatures=module.run)


def _load_savedmodel(folder: Path) -> Call:
    tf = _tensorflow()
    loaded = tf.saved_model.load(str(folder / "model.savedmodel"))
    run = loaded.signatures["serving_default"]

    def call(x: np.ndarray) -> np.ndarray:
        assert loaded is not None  # it owns what `run` uses
        return run(x=tf.constant(x))["y"].numpy()

    return call


def _keras(folder: Path) -> None:
    _tensorflow()
    import keras

    x = keras.Input((WIDE,), name="x")
    dense = keras.layers.Dense(NARROW, activation="tanh", name="y")
    model = keras.Model(x, dense(x))
    dense.set_weights(list(weights()))
    model.save(folder / "model.keras")


def _load_keras(folder: Path) -> Call:
    tf = _tensorflow()
    import keras

    model = keras.models.load_model(folder / "model.keras")
    run = tf.function(lambda x: model(x, training=False))
    return lambda x: run(tf.constant(x)).numpy()


def _skops(folder: Path) -> None:
    import skops.io
    from sklearn.linear_model import LinearRegression

    weight, bias = weights()
    model = LinearRegression()
    model.coef_, model.intercept_, model.n_features_in_ = weight.T.copy(), bias, WIDE
    skops.io.dump(model, folder / "model.skops")


def _load_skops(folder: Path) -> Call:
    import skops.io

    return skops.io.load(folder / "model.skops").predict  # type: ignore[no-any-return]


# -- no framework -----------------------------------------------------------------------------------------------------

_PYTHON = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        with np.load(f"{args['model_repository']}/{args['model_version']}/weights.npz") as file:
            self.weight, self.bias = file["weight"], file["bias"]

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            y = np.tanh(x @ self.weight + self.bias)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return responses
"""


def _python(folder: Path) -> None:
    weight, bias = weights()
    np.savez(folder / "weights.npz", weight=weight, bias=bias)
    (folder / "model.py").write_text(_PYTHON)


def _load_python(_folder: Path) -> Call:
    weight, bias = weights()
    return lambda x: np.tanh(x @ weight + bias)


TORCH = {"backend": "pytorch", "needs": ("torch",), "fix": "pip install 'naiad[torch]'"}
TENSORFLOW = {"backend": "tensorflow", "needs": ("tensorflow",), "fix": "pip install 'naiad[tensorflow]'"}

FORMATS: tuple[Format, ...] = (
    Format(
        name="identity",
        label="no file (backend `identity`)",
        backend="identity",
        make=lambda folder: None,
        load=lambda folder: lambda x: x,
        config=_io("identity", 32, WIDE, ("INPUT0", "OUTPUT0")),
    ),
    Format(
        name="torchscript",
        label="TorchScript, traced",
        file="model.pt",
        make=_traced,
        load=_by_torch(_load_torchscript),
        **TORCH,
    ),
    Format(
        name="torchscript-scripted",
        label="TorchScript, scripted",
        file="model.pt",
        make=_scripted,
        load=_by_torch(_load_torchscript),
        **TORCH,
    ),
    Format(
        name="torch-export",
        label="torch.export `.pt2`",
        file="model.pt2",
        make=_exported,
        load=_by_torch(_load_exported),
        **TORCH,
    ),
    Format(
        name="aotinductor",
        label="AOTInductor `.pt2`",
        file="model.pt2",
        make=_compiled,
        load=_by_torch(_load_compiled),
        programs=("g++",),
        **TORCH,
    ),
    Format(
        name="torch-class",
        label="PyTorch class (`model.py` with weights)",
        file="model.py",
        make=_class,
        load=_by_torch(lambda folder: _net()),
        config=_io("pytorch", 32, NARROW, ("x", "OUTPUT__0")) + 'runtime: "model.py"\n',
        **TORCH,
    ),
    Format(
        name="onnx",
        label="ONNX",
        backend="onnxruntime",
        file="model.onnx",
        make=_onnx,
        load=_load_onnx,
        needs=("onnx", "onnxruntime"),
        fix="pip install 'naiad[onnx]' onnx",
    ),
    Format(
        name="savedmodel",
        label="TensorFlow SavedModel",
        file="model.savedmodel",
        make=_savedmodel,
        load=_load_savedmodel,
        **TENSORFLOW,
    ),
    Format(
        name="keras",
        label="Keras 3 `.keras`",
        file="model.keras",
        make=_keras,
        load=_load_keras,
        **TENSORFLOW,
    ),
    Format(
        name="skops",
        label="scikit-learn (skops)",
        backend="sklearn",
        file="model.skops",
        make=_skops,
        load=_load_skops,
        needs=("sklearn", "skops"),
        fix="pip install 'naiad[sklearn]'",
    ),
    Format(
        name="python",
        label="Triton Python model",
        backend="python",
        file="model.py",
        make=_python,
        load=_load_python,
        config=_io("python", 32, NARROW, ("x", "y")),
    ),
)
BY_NAME = {each.name: each for each in FORMATS}


def p50_secs(call: Call, batch: int) -> float:
    """Median seconds of a direct call."""
    given = rows(batch)
    took = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call(given)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def main(words: list[str]) -> None:
    """`NAME FOLDER ANSWERS` makes and asks; `NAME FOLDER time BATCH…` prints the median seconds of each batch."""
    name, folder, rest = words[0], Path(words[1]), words[2:]
    row = BY_NAME[name]
    if rest[0] == "time":
        call = row.load(folder)
        for batch in map(int, rest[1:]):
            call(rows(batch))
            print(p50_secs(call, batch))
        return
    row.make(folder)
    call = row.load(folder)
    np.savez(rest[0], **{str(batch): np.asarray(call(rows(batch))) for batch in BATCHES})


if __name__ == "__main__":
    main(sys.argv[1:])
