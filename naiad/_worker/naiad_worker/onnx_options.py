"""What a configuration asks of onnxruntime: the options of a session and the devices that it may run on."""

from __future__ import annotations

from typing import Any

from naiad_worker.backends import LoadFailure, LoadSpec
from naiad_worker.parameters import name_unused, parameter

MOST_THREADS = 1024
# optimization.graph.level as Triton reads it; 0 stands for all optimizations.
LEVELS = {-1: "ORT_ENABLE_BASIC", 0: "ORT_ENABLE_ALL", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
ACCELERATORS = {
    "cpu": {"openvino": "OpenVINOExecutionProvider"},
    "gpu": {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"},
}
_CORRECT = "correct it in config.pbtxt"
_BOOLEANS = {"0": False, "false": False, "1": True, "true": True}
_INTER = "inter_op_thread_count"
_SESSION = "session."
_SPINNING = "session.intra_op.allow_spinning"
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_KNOWN = (_INTER, "execution_mode", "enable_mem_arena", "enable_mem_pattern", _SHRINKAGE)
# Options of CUDA that Triton also takes as parameters, by number; None is any number.
_CUDA: dict[str, tuple[str, ...] | None] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "gpu_mem_limit": None,
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "do_copy_in_default_stream": ("0", "1"),
}
_CUDA_PROVIDER = "CUDAExecutionProvider"
_TENSORRT = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}

Provider = tuple[str, dict[str, str]]


def _number(config: dict[str, Any], name: str, most: int) -> int:
    """A number of `parameters`, 0 where it is not written; raises `LoadFailure`."""
    value = parameter(config, name)
    if not value:
        return 0
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(most))) or int(value) > most:
        raise _wrong(name, f"0 to {most}", value)
    return int(value)


def _boolean(config: dict[str, Any], name: str) -> bool | None:
    value = parameter(config, name)
    if not value:
        return None
    if value.lower() not in _BOOLEANS:
        raise _wrong(name, "0, 1, false or true", value)
    return _BOOLEANS[value.lower()]


def _wrong(name: str, expected: str, got: object) -> LoadFailure:
    return LoadFailure(f"parameters '{name}': expected {expected}, got '{got}'", _CORRECT, "CONFIG_INVALID")


def session_options(ort: Any, spec: LoadSpec) -> Any:
    """SessionOptions of a model; raises `LoadFailure` naming a wrong value."""
    config = spec.config
    options = ort.SessionOptions()
    options.log_severity_level = 3  # what is worth a warning to its authors fills the log of a server
    intra = options.intra_op_num_threads = max(1, spec.threads)
    between = _number(config, _INTER, MOST_THREADS) or int(spec.settings.get(_INTER, 0))
    options.inter_op_num_threads = between or intra
    if _number(config, "execution_mode", 1):
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    arena, pattern = _boolean(config, "enable_mem_arena"), _boolean(config, "enable_mem_pattern")
    if arena is not None:
        options.enable_cpu_mem_arena = arena
    if pattern is not None:
        options.enable_mem_pattern = pattern
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    if level not in LEVELS:
        expected = ", ".join(map(str, sorted(LEVELS)))
        raise LoadFailure(f"optimization.graph.level: expected {expected}, got {level}", _CORRECT, "CONFIG_INVALID")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    entries = {name: parameter(config, name) for name in config.get("parameters", {}) if name.startswith(_SESSION)}
    if intra > 1:
        # Threads that spin take the processor from the other workers of the machine.
        entries.setdefault(_SPINNING, "0")
    for name, value in entries.items():
        try:
            options.add_session_config_entry(name, value)
        except Exception as error:
            what = f"parameters '{name}': onnxruntime does not take '{value}': {error}"
            raise LoadFailure(what, _CORRECT, "CONFIG_INVALID") from error
    name_unused(config, "onnxruntime", {*_KNOWN, *_CUDA}, _SESSION)
    return options


def run_options(ort: Any, config: dict[str, Any]) -> Any:
    """RunOptions of every call: errors are raised, so that they need not be logged, too."""
    options = ort.RunOptions()
    options.log_severity_level = 4
    shrinkage = parameter(config, _SHRINKAGE)
    if shrinkage:
        options.add_run_config_entry(_SHRINKAGE, shrinkage)
    return options


def providers(available: list[str], spec: LoadSpec) -> list[Provider]:
    """Execution providers in their order, with their options; raises `LoadFailure` for one that is not there."""
    accelerators = spec.config.get("optimization", {}).get("execution_accelerators", {})
    for side in ("cpu", "gpu"):
        for entry in accelerators.get(f"{side}_execution_accelerator", []):
            if entry["name"] not in ACCELERATORS[side]:
                raise LoadFailure(
                    f"{side}_execution_accelerator: expected {' or '.join(sorted(ACCELERATORS[side]))}, "
                    f"got '{entry['name']}'",
                    _CORRECT,
                    "CONFIG_INVALID",
                )
    side = "gpu" if spec.device.get("kind") == "cuda" else "cpu"
    wanted: list[Provider] = []
    for entry in accelerators.get(f"{side}_execution_accelerator", []):
        told = {str(name): str(value) for name, value in entry.get("parameters", {}).items()}
        wanted.append((ACCELERATORS[side][entry["name"]], _tensorrt(told) if entry["name"] == "tensorrt" else told))
    if side == "gpu":
        if not any(name == _CUDA_PROVIDER for name, _ in wanted):
            wanted.append((_CUDA_PROVIDER, {}))
        older = _cuda(spec.config)
        wanted = [(name, {**older, **told} if name == _CUDA_PROVIDER else told) for name, told in wanted]
        wanted = [(name, {**told, "device_id": str(spec.device.get("id", 0))}) for name, told in wanted]
    for name, _ in wanted:
        if name not in available:
            raise missing(name, available)
    return [*wanted, ("CPUExecutionProvider", {})]


def _cuda(config: dict[str, Any]) -> dict[str, str]:
    """The options of CUDA that are written as parameters; raises `LoadFailure`."""
    told = {}
    for name, words in _CUDA.items():
        if not parameter(config, name):
            continue
        number = _number(config, name, 2**64 - 1 if words is None else len(words) - 1)
        told[name] = str(number) if words is None else words[number]
    return told


def _tensorrt(told: dict[str, str]) -> dict[str, str]:
    """Triton's names for options of TensorRT; others go on as they are."""
    options = dict(told)
    precision = options.pop("precision_mode", "FP32")
    if precision not in ("FP32", "FP16", "INT8"):
        what = f"tensorrt: precision_mode: expected FP32, FP16 or INT8, got '{precision}'"
        raise LoadFailure(what, _CORRECT, "CONFIG_INVALID")
    if precision != "FP32":
        options[f"trt_{precision.lower()}_enable"] = "true"
    for name, own in _TENSORRT.items():
        if name in options:
            options[own] = options.pop(name)
    return options


def missing(name: str, available: list[str]) -> LoadFailure:
    """An execution provider that this onnxruntime does not have or cannot start."""
    packages = {"OpenVINOExecutionProvider": "onnxruntime-openvino"}
    there = ", ".join(provider.replace("ExecutionProvider", "") for provider in available)
    return LoadFailure(
        f"this onnxruntime cannot run models by {name.replace('ExecutionProvider', '')}; it has {there}",
        f"install {packages.get(name, 'onnxruntime-gpu')} in its place, or do not ask for it in config.pbtxt",
        "ENV_MISSING_BACKEND",
    )
