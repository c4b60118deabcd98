"""TensorFlow SavedModels through a session, and Keras archives through a traced function.

A session serves every SavedModel, also those of TensorFlow 1 and of Keras 2, which `tf.saved_model.load` may refuse. A
call costs it microseconds where a call of the restored function costs a hundred: inputs are read where they lie in the
arena, and operators run in the thread that calls.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from naiad_worker.backends import LoadFailure, LoadSpec
from naiad_worker.parameters import name_unused, parameter
from naiad_worker.tensors import Bf16Array

FORKS = True

TAG, SIGNATURE = "serve", "serving_default"
GRAPH_FILE = "saved_model.pb"
MAX_INIT_OPS_FILE = 1 << 20
_INTER, _TAGS, _INIT, _PER_SESSION = (
    "TF_NUM_INTER_THREADS",
    "TF_GRAPH_TAG",
    "TF_INIT_OPS_FILE",
    "TF_USE_PER_SESSION_THREADS",
)
_SIGNATURES = ("TF_SIGNATURE_DEF", "signature")
# The last one has nothing to change: each instance is a process of its own, with one session.
_KNOWN = (_INTER, _TAGS, _INIT, _PER_SESSION, *_SIGNATURES, "MAX_SESSION_SHARE_COUNT")
_MIXED = "auto_mixed_precision"
_RUNS_AT_LOAD = "__saved_model_"
_UNSERVED = {"complex64", "complex128", "qint8", "quint8", "qint16", "quint16", "qint32", "resource", "variant"}
# Operators that may keep the memory of an input beyond the call, which the arena gives to others then.
_KEEPS = re.compile(r"Assign|Enqueue|StackPush|Stage|Insert|PyFunc")
_MISSING_OP = re.compile(r"Op type not registered '([^']+)'")


def preimport() -> None:
    """Imports TensorFlow; makes no session and no tensor, whose threads a fork would lose (the zygote calls it)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors alone
    # A file in the home of the user who serves must not change what a model computes, nor be written.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


class Backend:
    """One loaded model."""

    def __init__(self, spec: LoadSpec) -> None:
        preimport()
        archive = zipfile.is_zipfile(os.path.join(spec.directory, spec.file))
        name_unused(spec.config, "tensorflow", (_INTER,) if archive else _KNOWN)
        _name_unused_optimizations(spec.config, archive=archive)
        self._model: Any = KerasModel(spec) if archive else SavedModel(spec)
        self._order: list[int] = []
        """Which input of the configuration each input of the model is."""
        self._places: list[int] = []
        """Which output of the model each output of the configuration is."""

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name for inputs by argument name."""
        order = _order([{"name": name} for name in inputs], self._model.inputs)
        arrays = list(inputs.values())
        results = self._model.run([arrays[place] for place in order])
        return dict(zip(self._model.outputs, results))

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Fixes which tensor of the model each input and output is."""
        self._order = _order(inputs, self._model.inputs)
        self._places = [_output(tensor["name"], place, self._model.outputs) for place, tensor in enumerate(outputs)]

    def execute(self, inputs: dict[int, Any]) -> tuple[list[tuple[int, Any]], bytes]:
        """Output arrays by index."""
        if len(inputs) != len(self._order):
            raise ValueError(f"expected {len(self._order)} inputs, got {len(inputs)}")
        results = self._model.run([inputs[place] for place in self._order])
        return [(index, results[place]) for index, place in enumerate(self._places)], b""

    def finalize(self) -> None:
        """Gives back what the model holds."""
        self._model.close()


# -- names -----------------------------------------------------------------------------------------------------------


def _order(tensors: list[dict[str, Any]], names: list[str]) -> list[int]:
    """For each input of the model, which of `tensors` it is; raises `LoadFailure`."""
    taken: dict[int, int] = {}
    for index, tensor in enumerate(tensors):
        place = _place(tensor, names, len(tensors))
        if place in taken:
            raise LoadFailure(f"two inputs name the same input '{names[place]}' of the model", code="IO_MISMATCH")
        taken[place] = index
    if len(taken) != len(names):
        raise LoadFailure(
            f"the model takes {len(names)} inputs ({', '.join(names)}), got {len(tensors)}",
            "declare them all in config.pbtxt, or none",
            "IO_MISMATCH",
        )
    return [taken[place] for place in range(len(names))]


def _place(tensor: dict[str, Any], names: list[str], count: int) -> int:
    for name in (tensor.get("argument"), tensor["name"]):
        if name in names:
            return names.index(name)
    numbered = re.fullmatch(r".*__(\d+)", tensor["name"])
    if numbered and int(numbered[1]) < len(names):
        return int(numbered[1])
    if count == len(names) == 1:
        return 0
    raise LoadFailure(
        f"input '{tensor['name']}' is none of the model's: {', '.join(names)}",
        "name the inputs as the signature does, or set the input's 'argument'",
        "IO_MISMATCH",
    )


def _output(name: str, place: int, names: list[str]) -> int:
    """The output of this name, else by the number in its name, else by its place."""
    if name in names:
        return names.index(name)
    numbered = re.fullmatch(r".*__(\d+)", name)
    position = int(numbered[1]) if numbered else place
    if position >= len(names):
        raise LoadFailure(
            f"the model gives {len(names)} outputs ({', '.join(names)}), so there is none for '{name}'",
            code="IO_MISMATCH",
        )
    return position


# -- settings --------------------------------------------------------------------------------------------------------


def _inter_threads(spec: LoadSpec) -> int:
    """How many operators may run at a time: one unless the configuration asks for more (0: as many as processors)."""
    value = parameter(spec.config, _INTER) or "1"
    if not (value.isascii() and value.isdigit() and len(value) < 5):
        raise LoadFailure(f"parameters '{_INTER}': expected a number of threads, got '{value}'", code="CONFIG_INVALID")
    return int(value) or os.cpu_count() or 1


def _truth(spec: LoadSpec, name: str) -> bool:
    value = parameter(spec.config, name).lower()
    if value not in ("", "1", "0", "true", "false", "yes", "no", "on", "off"):
        raise LoadFailure(f"parameters '{name}': expected yes or no, got '{value}'", code="CONFIG_INVALID")
    return value in ("1", "true", "yes", "on")


def _optimization(config: dict[str, Any]) -> tuple[int, list[str]]:
    """The level of the graph, and the accelerators by name."""
    optimization = config.get("optimization", {})
    sides = optimization.get("execution_accelerators", {})
    entries = sides.get("gpu_execution_accelerator", []) + sides.get("cpu_execution_accelerator", [])
    return int(optimization.get("graph", {}).get("level", 0)), [str(entry["name"]) for entry in entries]


def _name_unused_optimizations(config: dict[str, Any], *, archive: bool) -> None:
    """Says in the log which optimizations change nothing."""
    level, accelerators = _optimization(config)
    unused = [f"execution accelerator '{name}'" for name in accelerators if archive or name != _MIXED]
    unused += ["optimization.graph.level"] if archive and level else []
    for what in unused:
        print(f"WARNING: {what}: the tensorflow backend does not use it", file=sys.stderr, flush=True)


def _device(spec: LoadSpec) -> int | None:
    """The number of the GPU, or None for the CPU."""
    return int(spec.device.get("id", 0)) if spec.device.get("kind") == "cuda" else None


# -- SavedModel ------------------------------------------------------------------------------------------------------


class SavedModel:
    """One signature of a SavedModel in a session of its own."""

    def __init__(self, spec: LoadSpec) -> None:
        import tensorflow as tf

        self._bfloat16 = tf.bfloat16.as_numpy_dtype
        self._inter = _inter_threads(spec)
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=self._config(spec))
        path = os.path.join(spec.directory, spec.file)
        folder = os.path.dirname(path) if os.path.basename(path) == GRAPH_FILE else path
        tags = [tag.strip() for tag in (parameter(spec.config, _TAGS) or TAG).split(",")]
        try:
            with self._graph.as_default():
                meta = tf.compat.v1.saved_model.load(self._session, tags, folder)
            self._initialise(spec)
        except (tf.errors.OpError, RuntimeError, ValueError, KeyError, OSError) as error:
            raise _refused(error, os.path.basename(folder)) from error
        signature = _signature(meta, spec)
        self.inputs = sorted(signature.inputs)
        self.outputs = _fetched(signature.outputs, spec, tf)
        feeds = [signature.inputs[name].name for name in self.inputs]
        fetches = [signature.outputs[name].name for name in self.outputs]
        self._copies = bool(_kept(meta.graph_def, fetches))
        # A session refuses to fetch what it is fed.
        self._passed = {place: feeds.index(name) for place, name in enumerate(fetches) if name in feeds}
        self._call = self._callable(feeds, [name for name in fetches if name not in feeds])

    def _config(self, spec: LoadSpec) -> Any:
        import tensorflow as tf

        device = _device(spec)
        level, accelerators = _optimization(spec.config)
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=max(1, spec.threads),
            inter_op_parallelism_threads=self._inter,
            use_per_session_threads=_truth(spec, _PER_SESSION),
            allow_soft_placement=spec.settings.get("allow-soft-placement") != "0",
        )
        # XLA, whose own levels are -1 (off) to 2.
        config.graph_options.optimizer_options.global_jit_level = max(-1, min(level, 2))
        if _MIXED in accelerators:
            config.graph_options.rewrite_options.auto_mixed_precision = 1  # RewriterConfig.ON
        if device is None:
            config.device_count["GPU"] = 0
        else:
            fraction = float(spec.settings.get("gpu-memory-fraction", 0))
            config.gpu_options.visible_device_list = str(device)
            config.gpu_options.allow_growth = not fraction
            config.gpu_options.per_process_gpu_memory_fraction = fraction
        return config

    def _initialise(self, spec: LoadSpec) -> None:
        """Runs the operators that the configuration's file lists; it lies with the version or with the model."""
        name = parameter(spec.config, _INIT)
        if not name:
            return
        if os.path.basename(name) != name:
            raise LoadFailure(f"parameters '{_INIT}': expected a file's name, got '{name}'", code="CONFIG_INVALID")
        paths = [os.path.join(folder, name) for folder in (spec.directory, os.path.dirname(spec.directory))]
        path = next((path for path in paths if os.path.isfile(path)), None)
        if path is None:
            raise LoadFailure(f"parameters '{_INIT}': '{name}' does not exist", code="CONFIG_INVALID")
        with open(path, "rb") as file:
            try:
                document = json.loads(file.read(MAX_INIT_OPS_FILE))
            except ValueError:
                document = None
        operators = document.get("init_ops") if isinstance(document, dict) else None
        if not isinstance(operators, list):
            raise LoadFailure(f"'{name}': expected a list 'init_ops' of operators' names", code="CONFIG_INVALID")
        self._session.run([self._graph.get_operation_by_name(str(operator)) for operator in operators])

    def _callable(self, feeds: list[str], fetches: list[str]) -> Any:
        from tensorflow.core.protobuf.config_pb2 import CallableOptions

        if not fetches:
            return lambda *_: []
        options = CallableOptions(feed=feeds, fetch=fetches)
        if self._inter == 1:
            options.run_options.inter_op_thread_pool = -1  # the caller's thread: no thread is woken and waited for
        # `Session.run` looks for the same feeds and fetches at each call, which costs ten times what this does.
        return self._session._make_callable_from_options(options)

    def run(self, arrays: list[Any]) -> list[Any]:
        """The outputs in their order for the inputs in theirs."""
        fed = [self._fed(array) for array in arrays]
        try:
            results = [self._array(result) for result in self._call(*fed)]
        except Exception as error:
            raise _failed(error) from error
        for place, source in self._passed.items():
            results.insert(place, self._array(fed[source]))
        return results

    def _fed(self, array: Any) -> Any:
        if isinstance(array, Bf16Array):
            array = array.view(np.ndarray).view(self._bfloat16)
        return array.copy() if self._copies else array

    def _array(self, result: Any) -> Any:
        return _plain(result, self._bfloat16)

    def close(self) -> None:
        """Ends the session."""
        self._session.close()


def _signature(meta: Any, spec: LoadSpec) -> Any:
    """The signature that is asked for, else `serving_default`, else the only one; raises `LoadFailure`."""
    names = sorted(name for name in meta.signature_def if not name.startswith(_RUNS_AT_LOAD))
    asked = next(filter(None, (parameter(spec.config, name) for name in _SIGNATURES)), "")
    name = asked or (names[0] if len(names) == 1 else SIGNATURE)
    if name not in names:
        raise LoadFailure(
            f"the SavedModel has no signature '{name}', but {', '.join(names) or 'none'}",
            "write parameters 'TF_SIGNATURE_DEF' with the name of one of them into config.pbtxt",
            "CONFIG_INVALID",
        )
    return meta.signature_def[name]


def _fetched(outputs: Any, spec: LoadSpec, tf: Any) -> list[str]:
    """Names of the outputs to compute: those that the configuration names, else all that clients can get."""
    names = [name for name in sorted(outputs) if tf.as_dtype(outputs[name].dtype).base_dtype.name not in _UNSERVED]
    written = {tensor["name"] for tensor in spec.config.get("output", [])}
    return [name for name in names if name in written] if written and written <= set(names) else names


def _kept(graph: Any, fetches: Iterable[str]) -> set[str]:
    """Operators below the fetched ones, in functions too, that may keep an input's memory after the call."""
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    seen: set[str] = set()
    found: set[str] = set()
    waiting = [nodes[name] for name in {fetch.split(":")[0] for fetch in fetches} if name in nodes]
    while waiting:
        node = waiting.pop()
        if _KEEPS.search(node.op):
            found.add(node.op)
        called = [node.op]
        for value in node.attr.values():
            called += [value.func.name, *(function.name for function in value.list.func)]
        for name in called:
            if name in functions and f"function {name}" not in seen:
                seen.add(f"function {name}")
                waiting += functions[name]
        for source in node.input:
            name = source.lstrip("^").split(":")[0]
            if name in nodes and name not in seen:
                seen.add(name)
                waiting.append(nodes[name])
    return found


# -- Keras -----------------------------------------------------------------------------------------------------------


class KerasModel:
    """A Keras archive as one traced function."""

    def __init__(self, spec: LoadSpec) -> None:
        import keras
        import tensorflow as tf

        self._tf = tf
        self._bfloat16 = tf.bfloat16.as_numpy_dtype
        threads = tf.config.threading
        threads.set_intra_op_parallelism_threads(max(1, spec.threads))
        threads.set_inter_op_parallelism_threads(_inter_threads(spec))
        gpus, device = tf.config.list_physical_devices("GPU"), _device(spec)
        tf.config.set_visible_devices([] if device is None else [gpus[device]], "GPU")
        if device is not None:  # without it one model takes all of the GPU's memory
            tf.config.experimental.set_memory_growth(gpus[device], True)
        try:
            # Safe mode refuses code that is stored in the file.
            model = keras.models.load_model(os.path.join(spec.directory, spec.file), compile=False, safe_mode=True)
        except Exception as error:  # whatever a layer raises
            raise _refused(error, spec.file) from error
        if not getattr(model, "inputs", None):
            raise LoadFailure(
                f"'{spec.file}' is a model whose inputs are not known", "begin it with an Input layer", "IO_MISMATCH"
            )
        self.inputs = [str(tensor.name) for tensor in model.inputs]
        function = tf.function(_with_inputs(model, keras))
        shapes = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
        self._call = function.get_concrete_function(*shapes)
        self.outputs = _output_names(self._call.structured_outputs, tf)

    def run(self, arrays: list[Any]) -> list[Any]:
        """The outputs in their order for the inputs in theirs."""
        try:
            results = self._tf.nest.flatten(self._call(*[self._tensor(array) for array in arrays]))
        except Exception as error:
            raise _failed(error) from error
        return [_plain(result.numpy(), self._bfloat16) for result in results]

    def _tensor(self, array: Any) -> Any:
        if isinstance(array, Bf16Array):
            array = array.view(np.ndarray).view(self._bfloat16)
        return self._tf.constant(array)  # a copy: eager tensors may outlive the call

    def close(self) -> None:
        """Drops the function and with it the model."""
        del self._call


def _with_inputs(model: Any, keras: Any) -> Any:
    """The model as a function of its inputs one by one, however it takes them: alone, in a list or in a dictionary."""
    alone = len(model.inputs) == 1 and not isinstance(getattr(model, "input", None), (dict, list, tuple))
    structure = None if alone else model.input

    def call(*tensors: Any) -> Any:
        return model(tensors[0] if alone else keras.tree.pack_sequence_as(structure, list(tensors)), training=False)

    return call


def _output_names(outputs: Any, tf: Any) -> list[str]:
    """Keys where the model gives a dictionary, else `output_0`, `output_1` … as `model.export` names them."""
    flat = tf.nest.flatten(outputs)
    if isinstance(outputs, dict) and len(outputs) == len(flat):
        return [str(name) for name in sorted(outputs)]
    return [f"output_{place}" for place in range(len(flat))]


# -- both ------------------------------------------------------------------------------------------------------------


def _plain(result: Any, bfloat16: Any) -> Any:
    """An array of a type that the worker knows."""
    if type(result) is not np.ndarray:
        result = np.asarray(result, dtype=object if isinstance(result, (bytes, str)) else None)
    return result.view(np.uint16).view(Bf16Array) if result.dtype == bfloat16 else result


def _told(error: BaseException) -> str:
    """What an error says, without the names of nodes and the stacks that TensorFlow puts around it."""
    text = str(getattr(error, "message", "") or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines[:1] == ["Graph execution error:"]:  # then come stacks, the cause, and the node in brackets
        node = next((place for place, line in enumerate(lines) if line.startswith("[[{{")), len(lines))
        lines = lines[max(1, node - 1) :]
    first = lines[0] if lines else type(error).__name__
    return re.sub(r"^(\{\{.*?\}\}\s*)+|\s*\[?\[\[?\{\{.*$|\s*\[Op:\w+\].*$", "", first)[:500]


def _failed(error: BaseException) -> Exception:
    """What a client is told of a call that fails: the cause without TensorFlow's stacks, which name files."""
    return ValueError(_told(error))


def _refused(error: BaseException, file: str) -> LoadFailure:
    """Why TensorFlow cannot load a file."""
    if isinstance(error, LoadFailure):
        return error
    missing = _MISSING_OP.search(str(error))
    if missing:
        return LoadFailure(
            f"'{file}' uses the operator '{missing[1]}', which this TensorFlow does not have",
            "serve it in an environment whose TensorFlow has it, or export the model without it",
            "MISSING_OP",
        )
    return LoadFailure(f"TensorFlow cannot load '{file}': {_told(error)}", "save the model again", "FILE_UNREADABLE")
