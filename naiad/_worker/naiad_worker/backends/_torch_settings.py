"""Parameters of a model's configuration that torch follows; names and meaning as in Triton's PyTorch backend."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from naiad_worker.backends import LoadFailure, LoadSpec

_FLAGS = (
    "DISABLE_OPTIMIZED_EXECUTION",
    "INFERENCE_MODE",
    "DISABLE_CUDNN",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_JIT_PROFILING",
    "ENABLE_TENSOR_FUSER",
    "ENABLE_NVFUSER",
    "ENABLE_WEIGHT_SHARING",
)
_NUMBERS = ("INTER_OP_THREAD_COUNT", "NUM_INTEROP_THREADS")
_ELSEWHERE = ("TORCH_COMPILE_OPTIONAL_PARAMETERS", "INTRA_OP_THREAD_COUNT", "NUM_THREADS")
"""Read by whom they concern: the loader of classes, and the server, which tells the number of threads."""
_OWN = "naiad."


class Settings(NamedTuple):
    """What a call needs to know."""

    inference_mode: bool
    """Without it gradients are off all the same (`torch.no_grad`)."""
    optimized: bool
    clean_cache: bool
    compile: str
    """JSON with the arguments of `torch.compile`; "" for no compilation."""


def apply(spec: LoadSpec, torch: Any) -> Settings:
    """Sets what torch keeps for the whole process; raises `LoadFailure` for a value that it cannot take."""
    given = {key: str(entry.get("string_value", "")) for key, entry in spec.config.get("parameters", {}).items()}
    flags = {name: _flag(name, given[name]) for name in _FLAGS if name in given}
    numbers = {name: _number(name, given[name]) for name in _NUMBERS if name in given}
    torch.set_num_threads(max(1, spec.threads))
    between = numbers.get("INTER_OP_THREAD_COUNT", numbers.get("NUM_INTEROP_THREADS"))
    if between is not None:
        torch.set_num_interop_threads(max(1, between))
    if flags.get("DISABLE_CUDNN"):
        torch.backends.cudnn.enabled = False
    if "ENABLE_JIT_EXECUTOR" in flags:
        torch._C._jit_set_profiling_executor(flags["ENABLE_JIT_EXECUTOR"])
    if "ENABLE_JIT_PROFILING" in flags:
        torch._C._jit_set_profiling_mode(flags["ENABLE_JIT_PROFILING"])
    if "ENABLE_TENSOR_FUSER" in flags:
        torch._C._jit_set_texpr_fuser_enabled(flags["ENABLE_TENSOR_FUSER"])
    _note(given, flags)
    return Settings(
        inference_mode=flags.get("INFERENCE_MODE", True),
        optimized=not flags.get("DISABLE_OPTIMIZED_EXECUTION", False),
        clean_cache=flags.get("ENABLE_CACHE_CLEANING", False),
        compile=given.get("TORCH_COMPILE_OPTIONAL_PARAMETERS", ""),
    )


def _note(given: dict[str, str], flags: dict[str, bool]) -> None:
    """Says in the log what is accepted and changes nothing."""
    if flags.get("ENABLE_WEIGHT_SHARING"):
        print("parameter ENABLE_WEIGHT_SHARING: each instance is a process of its own with its own weights", flush=True)
    if flags.get("ENABLE_NVFUSER"):
        print("parameter ENABLE_NVFUSER: torch has no nvFuser for TorchScript any more", file=sys.stderr, flush=True)
    known = {*_FLAGS, *_NUMBERS, *_ELSEWHERE}
    for name in sorted(given):
        if name not in known and not name.startswith(_OWN):
            print(f"parameter {name}: the pytorch backend does not use it", file=sys.stderr, flush=True)


def _flag(name: str, text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("true", "1"):
        return True
    if lowered in ("false", "0"):
        return False
    raise LoadFailure(f"parameters '{name}': expected true or false, got '{text}'")


def _number(name: str, text: str) -> int:
    stripped = text.strip().lstrip("-")
    if not stripped.isdigit() or len(stripped) > 6:
        raise LoadFailure(f"parameters '{name}': expected a number of threads, got '{text}'")
    return int(text)
