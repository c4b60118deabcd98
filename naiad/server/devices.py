"""Where instances run: the devices that a configuration's instance groups ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from naiad.config.model import ModelConfig
from naiad.errors import ConfigError

_GPU, _CPU, _MODEL = 1, 2, 3


def gpus() -> list[int]:
    """Numbers of the NVIDIA GPUs of this machine."""
    return sorted(
        int(path.name.removeprefix("nvidia")) for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()
    )


def check(message: Any, *, name: str) -> None:
    """Raises `ConfigError` for a group that asks for a GPU which is not there, before anything is started."""
    there: list[int] | None = None
    for position, group in enumerate(message.instance_group):
        if group.kind != _GPU and not group.gpus:
            continue
        there = gpus() if there is None else there
        if not there:
            label = group.name or f"{name}_{position}"
            raise ConfigError(
                f"instance group {label} of model {name} has kind KIND_GPU but no GPUs are available (CONFIG_INVALID); "
                "write kind: KIND_CPU, or leave instance_group out"
            )
        absent = [gpu for gpu in group.gpus if gpu not in there]
        if absent:
            raise ConfigError(f"instance_group.gpus: expected some of {there}, got {absent}")


def first(message: Any) -> dict[str, Any]:
    """The device of the first instance, of a configuration that need not be complete."""
    for group in message.instance_group:
        if group.gpus:
            return {"kind": "cuda", "id": group.gpus[0]}
        if group.kind == _MODEL:
            return {"kind": "model"}
        return {"kind": "cuda", "id": gpus()[0]} if group.kind == _GPU else {"kind": "cpu"}
    return {"kind": "cpu"}


def of_instances(config: ModelConfig) -> list[dict[str, Any]]:
    """One device an instance."""
    devices: list[dict[str, Any]] = []
    for group in config.instance_groups:
        if group.kind == "KIND_GPU":
            wanted = list(group.gpus) or gpus()[:1]
            devices += [{"kind": "cuda", "id": gpu} for gpu in wanted for _ in range(group.count)]
        elif group.kind == "KIND_MODEL":
            devices += [{"kind": "model"}] * group.count  # the model chooses for itself
        else:
            devices += [{"kind": "cpu"}] * group.count
    return devices
