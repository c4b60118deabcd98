"""Loads packages of AOTInductor: native libraries that torch has compiled from an exported program."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from typing import Any

from naiad_worker.backends import LoadFailure
from naiad_worker.backends._torch_common import Place, Runner, loading
from naiad_worker.backends._torch_export import named_leaves

_COMPILE = "compile the package again on a machine of this kind with the torch version that serves it"
# What torch calls a set of instructions → the flag of the kernel's /proc/cpuinfo.
_FLAGS = {"AVX2": "avx2", "AVX512": "avx512f", "AVX512_VNNI": "avx512_vnni", "AMX_TILE": "amx_tile"}
_TOO_SMALL = re.compile(r"dim value is too small at 0, expected it to be >= (\d{1,3}),")
_MOST_FILLED = 64


def load(place: Place, model: str, *, batches: bool) -> Runner:
    """The runner of the package's `model`; raises `LoadFailure` where it does not fit this machine or this torch.

    `batches` tells that the first dim is the batch, if the model has one at all.
    """
    import torch

    # Without the checks a wrong shape makes the library read past the tensor; they are asked for when it is loaded.
    os.environ["AOTI_RUNTIME_CHECK_INPUTS"] = "1"
    with loading(place.file, _COMPILE):
        metadata = torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package(place.path, model)
    _fits(place, metadata)
    with loading(place.file, _COMPILE):
        loader = _open(torch, place, model)
        spec_of_inputs, spec_of_outputs = loader.get_call_spec()
    from torch.utils import _pytree

    names, aliases = _names(_pytree.treespec_loads(spec_of_inputs), metadata)
    outputs = _pytree.treespec_loads(spec_of_outputs)

    def call(tensors: list[Any]) -> Any:
        flat = loader.run(tensors)
        return _pytree.tree_unflatten(flat, outputs) if outputs.num_leaves == len(flat) else flat

    return Runner(_Filled(torch, call) if batches else call, names, aliases)


def _open(torch: Any, place: Place, model: str) -> Any:
    """Lets torch unpack the library into a folder of its own, which is not needed once the library is mapped.

    A worker that is killed would leave it behind, so it goes at once.
    """
    index = place.device.index if place.device is not None and place.device.type == "cuda" else -1
    folder = tempfile.mkdtemp(prefix="naiad-aoti-")
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    try:
        # Single-threaded: false, one runner. `torch._inductor.aoti_load_package` ends in the same call, after imports
        # of several seconds that a package which is compiled already has no use for.
        return torch._C._aoti.AOTIModelPackageLoader(place.path, model, False, 1, index)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def _fits(place: Place, metadata: dict[str, str]) -> None:
    """Raises `LoadFailure` for a library of another system, processor or device, before it is mapped."""
    machine, system = metadata.get("AOTI_MACHINE"), metadata.get("AOTI_PLATFORM")
    if (machine or platform.machine()) != platform.machine() or (system or sys.platform) != sys.platform:
        raise LoadFailure(
            f"'{place.file}' was compiled for {system} {machine}, this is {sys.platform} {platform.machine()}", _COMPILE
        )
    flags = _cpu_flags()
    wanted = metadata.get("AOTI_CPU_ISA", "").upper().split()
    lacking = [name for name in wanted if flags and name in _FLAGS and _FLAGS[name] not in flags]
    if lacking:
        raise LoadFailure(
            f"'{place.file}' was compiled for a processor with {', '.join(wanted)}; this one lacks "
            f"{', '.join(lacking)}",
            _COMPILE,
        )
    device = metadata.get("AOTI_DEVICE_KEY", "cpu")
    if place.device is not None and device != place.device.type:
        raise LoadFailure(
            f"'{place.file}' was compiled for {device}, the instance runs on {place.device.type}",
            "choose the instance group's kind to match (KIND_GPU for cuda), or compile it for the other device",
        )


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "flags":
                    return set(value.split())
    except OSError:
        pass
    return set()


def _names(spec: Any, metadata: dict[str, str]) -> tuple[list[str], dict[str, int]]:
    """Names from the metadata that the packer wrote, else keywords as they are called and INPUT__0…n."""
    leaves = named_leaves(spec, [])
    aliases = {path: at for at, (_, path) in enumerate(leaves)}
    names = [name for name, _ in leaves]
    try:
        told = [str(entry["name"]) for entry in json.loads(metadata.get("naiad.inputs", "[]"))]
    except (ValueError, TypeError, KeyError, RecursionError):
        told = []
    if len(told) != len(names):
        return names, aliases
    return told, {**aliases, **{name: at for at, name in enumerate(names)}}


class _Filled:
    """A call that also takes fewer rows than the library wants.

    torch compiles a dynamic batch for two rows and more, sometimes for a range around the example's batch, and its own
    check refuses what lies outside. The first row is repeated then, and the results of the repetitions are dropped.
    """

    def __init__(self, torch: Any, call: Any) -> None:
        self._torch = torch
        self._call = call
        self._least = 1

    def __call__(self, tensors: list[Any]) -> Any:
        rows = _rows(tensors)
        if rows is None or rows >= self._least:
            try:
                return self._call(tensors)
            except RuntimeError as error:
                small = _TOO_SMALL.search(str(error))
                if rows is None or small is None or not rows < int(small[1]) <= _MOST_FILLED:
                    raise
                result = self._filled(tensors, rows, int(small[1]))
                if result is None:
                    raise
                self._least = int(small[1])
                return result
        result = self._filled(tensors, rows, self._least)
        if result is None:
            raise ValueError("an output's first dim does not follow the batch")
        return result

    def _filled(self, tensors: list[Any], rows: int, least: int) -> Any:
        """The result of `rows` rows, run as `least`; None where an output does not follow."""
        more = [tensor[:1].expand(least - rows, *tensor.shape[1:]) for tensor in tensors]
        result = self._call([self._torch.cat(pair) for pair in zip(tensors, more)])
        try:
            return self._cut(result, rows, least)
        except ValueError:
            return None

    def _cut(self, result: Any, rows: int, least: int) -> Any:
        if isinstance(result, dict):
            return {key: self._cut(value, rows, least) for key, value in result.items()}
        if isinstance(result, (tuple, list)):
            return [self._cut(value, rows, least) for value in result]
        if isinstance(result, self._torch.Tensor):
            if result.dim() == 0 or result.shape[0] != least:
                raise ValueError
            return result[:rows]
        return result


def _rows(tensors: list[Any]) -> int | None:
    """The first dim that all tensors have; None where they have none in common."""
    found = {tensor.shape[0] if tensor.dim() else None for tensor in tensors}
    return found.pop() if len(found) == 1 else None
