"""Makes small TensorFlow and Keras models and what TensorFlow itself says and answers of them; run as a program.

TensorFlow warns and takes seconds to import, so tests never import it: they run this file once a session.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ADD_SUB = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.full((3, 4), 0.5, np.float32),
}
TEXTS = {
    "left": np.array([[b"ab", "ä".encode()], [b"", b"x y"]], dtype=object),
    "right": np.array([[b"1", b"2"], [b"3", b""]], dtype=object),
}
FEATURES = {"features": np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)}
PAIR = {
    "a": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(8, dtype=np.int32).reshape(2, 4),
}
TYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP64": "float64",
    "BF16": "bfloat16",
}  # fmt: skip
"""Datatypes of the protocol as TensorFlow calls them, those of the other models apart."""
DISABLED = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}


class Models:
    """A folder of models with what TensorFlow said of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signatures: dict[str, Any] = json.loads((folder / "signatures.json").read_text())
        """By model, then by signature: inputs and outputs as `{name: [dtype, dims or None]}`."""

    def path(self, name: str) -> Path:
        return self.folder / name

    def answer(self, name: str) -> dict[str, np.ndarray]:
        """What TensorFlow gives for the inputs above, called without a server."""
        with np.load(self.folder / f"{name}.npz") as file:
            return {key: file[key].astype(object) if file[key].dtype.kind == "S" else file[key] for key in file}

    def install(self, name: str, repository: Path, *, model: str, file: str = "", config: str = "") -> Path:
        """Copies a model into a repository; the path of its file or folder there."""
        default = "model.keras" if name.endswith(".keras") else "model.savedmodel"
        target = repository / model / "1" / (file or default)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.path(name).is_dir():
            shutil.copytree(self.path(name), target, dirs_exist_ok=True)
        else:
            shutil.copy(self.path(name), target)
        if config:
            (repository / model / "config.pbtxt").write_text(config)
        return target


def make(folder: Path) -> Models:
    """Runs this file in a process of its own; skips where TensorFlow is not installed."""
    _run("make", str(folder))
    return Models(folder)


def direct(path: Path, inputs: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """What a session of TensorFlow gives for a SavedModel's `serving_default`, called in a process of its own."""
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
    _run("session", str(path), str(folder))
    with np.load(folder / "outputs.npz") as file:
        return dict(file)


def _run(*arguments: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed: pip install 'naiad[tensorflow]'")
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "tests.support.tensorflow_models", *arguments]
    environment = {**os.environ, **DISABLED, "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]


# -- the program, which alone imports TensorFlow -----------------------------------------------------------------------


def _add_sub(tf: Any) -> Any:
    class AddSub(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 4], tf.float32, name="b"),
                tf.TensorSpec([None, 4], tf.float32, name="a"),
            ]
        )
        def run(self, b, a):  # type: ignore[no-untyped-def]
            return {"sum": a + b, "difference": a - b}

    model = AddSub()
    return model, model.run


def _texts(tf: Any) -> Any:
    class Texts(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 2], tf.string, name="left"),
                tf.TensorSpec([None, 2], tf.string, name="right"),
            ]
        )
        def run(self, left, right):  # type: ignore[no-untyped-def]
            joined = tf.strings.join([left, right], separator="-")
            return {"joined": joined, "length": tf.strings.length(joined)}

    model = Texts()
    return model, model.run


def _types(tf: Any) -> Any:
    reverse = tf.function(lambda **tensors: {f"{name}_OUT": tf.reverse(t, [1]) for name, t in tensors.items()})
    inputs = {name: tf.TensorSpec([None, 3], dtype, name=name) for name, dtype in TYPES.items()}
    return tf.Module(), reverse.get_concrete_function(**inputs)


def _keeping(tf: Any) -> Any:
    """Gives what it got at the call before; without a copy that memory would belong to others by then."""

    class Keeping(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.last = tf.Variable(tf.zeros([64]), shape=[None], trainable=False)

        @tf.function(input_signature=[tf.TensorSpec([64], tf.float32, name="x")])
        def run(self, x):  # type: ignore[no-untyped-def]
            before = tf.identity(self.last.read_value()) + 0.0
            with tf.control_dependencies([before]):
                self.last.assign(x)
            return {"before": before}

    model = Keeping()
    return model, model.run


def _hungry(tf: Any) -> Any:
    """Counts up to `n` with a tensor of that size."""

    class Hungry(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([1], tf.int32, name="n")])
        def run(self, n):  # type: ignore[no-untyped-def]
            return {"count": tf.reshape(tf.reduce_sum(tf.fill(n, 1.0)), [1])}

    model = Hungry()
    return model, model.run


def _shapes(tf: Any) -> Any:
    """A scalar, an open rank and an open inner dim; the output of a type that no client can get stays away."""

    class Shapes(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec([], tf.float32, name="scale"),
                tf.TensorSpec([None, None], tf.float32, name="x"),
            ]
        )
        def run(self, scale, x):  # type: ignore[no-untyped-def]
            scaled = tf.debugging.check_numerics(scale * x, "scaled")
            return {"total": tf.reduce_sum(scaled), "scaled": scaled, "wave": tf.cast(scaled, tf.complex64)}

    model = Shapes()
    return model, model.run


def _several(tf: Any, path: str) -> None:
    """Two signatures, none of them the default; one takes a tensor of any rank."""

    class Several(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def twice(self, x):  # type: ignore[no-untyped-def]
            return {"y": x * 2.0}

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
        def half(self, x):  # type: ignore[no-untyped-def]
            return {"y": x / 2.0}

    model = Several()
    tf.saved_model.save(model, path, signatures={"twice": model.twice, "half": model.half})


def _old(tf: Any, path: str) -> None:
    """As TensorFlow 1 wrote it: other tags, an input that is an output, a variable that an operator fills."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        weight = v1.get_variable("weight", initializer=[2.0, 3.0], use_resource=False)
        bias = v1.get_local_variable("bias", initializer=[10.0, 20.0], use_resource=False)
        v1.variables_initializer([bias], name="fill")
        y = tf.add(x * weight, bias, name="y")
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"x": x}, {"same": x, "y": y})
        builder = v1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(session, ["serve", "cpu"], {"only": signature})
        builder.save()


def _keras(tf: Any, folder: Path) -> None:
    import keras

    keras.utils.set_random_seed(7)
    features = keras.Input((8,), name="features")
    hidden = keras.layers.Dense(4, activation="relu")(features)
    model = keras.Model(features, keras.layers.Dense(2, name="scores")(keras.layers.BatchNormalization()(hidden)))
    model.save(folder / "functional.keras")
    model.export(str(folder / "exported"), verbose=False)
    _keep(folder, "functional.keras", {"output_0": model(FEATURES["features"], training=False)})
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b", dtype="int32")
    joined = keras.layers.Concatenate()([a, keras.ops.cast(b, "float32")])
    pair = keras.Model({"b": b, "a": a}, {"score": keras.layers.Dense(1)(joined), "twice": a * 2.0})
    pair.save(folder / "pair.keras")
    _keep(folder, "pair.keras", pair(PAIR, training=False))
    sequence = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(3, activation="softmax")])
    sequence.save(folder / "sequential.keras")
    _keep(folder, "sequential.keras", {"output_0": sequence(FEATURES["features"], training=False)})
    keras.Sequential([keras.layers.Input((8,)), keras.layers.Lambda(lambda x: x * 2)]).save(folder / "lambda.keras")


def _keep(folder: Path, name: str, outputs: dict[str, Any]) -> None:
    arrays = {key: np.asarray(value) for key, value in outputs.items()}
    plain = {key: array.astype("S") if array.dtype == object else array for key, array in arrays.items()}
    np.savez(folder / f"{name}.npz", **plain)


def _told(tf: Any, path: Path) -> dict[str, Any]:
    """Every signature as TensorFlow's own loader has it."""

    def tensors(structure: dict[str, Any]) -> dict[str, Any]:
        return {
            name: [spec.dtype.name, None if spec.shape.rank is None else spec.shape.as_list()]
            for name, spec in structure.items()
        }

    return {
        name: [tensors(function.structured_input_signature[1]), tensors(function.structured_outputs)]
        for name, function in tf.saved_model.load(str(path)).signatures.items()
    }


def _session(path: str, folder: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session, np.load(folder / "inputs.npz") as inputs:
        signature = v1.saved_model.load(session, ["serve"], path).signature_def["serving_default"]
        fed = {signature.inputs[name].name: inputs[name] for name in inputs}
        np.savez(folder / "outputs.npz", **session.run({name: o.name for name, o in signature.outputs.items()}, fed))


def _make(folder: Path) -> None:
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    makers = {
        "add-sub": _add_sub, "texts": _texts, "types": _types, "keeping": _keeping, "hungry": _hungry, "shapes": _shapes
    }  # fmt: skip
    for name, maker in makers.items():
        model, function = maker(tf)
        tf.saved_model.save(model, str(folder / name), signatures=function)
    _several(tf, str(folder / "several"))
    _old(tf, str(folder / "old"))
    _keras(tf, folder)
    for name, inputs in (("add-sub", ADD_SUB), ("texts", TEXTS), ("exported", FEATURES)):
        function = tf.saved_model.load(str(folder / name)).signatures["serving_default"]
        _keep(folder, name, function(**{key: tf.constant(value) for key, value in inputs.items()}))
    named = [*makers, "several", "exported"]
    (folder / "signatures.json").write_text(json.dumps({name: _told(tf, folder / name) for name in named}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        _make(Path(sys.argv[2]))
    else:
        _session(sys.argv[2], Path(sys.argv[3]))
