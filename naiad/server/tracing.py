"""Reads `--trace-config` and the older `--trace-…` options: which requests are traced, and where traces go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from naiad.errors import ConfigError

LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
MODES = ("triton", "opentelemetry")
URL = "http://localhost:4318/v1/traces"
MOST = 2**31 - 1

_GLOBAL = ("level", "rate", "count", "mode")
_TRITON = ("file", "log-frequency")
_SIZES = {"bsp_max_queue_size": 2048, "bsp_schedule_delay": 5000, "bsp_max_export_batch_size": 512}


@dataclass(slots=True)
class _Read:
    """What the texts say so far."""

    level: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    """By `setting` or `mode,setting`; the last one counts."""
    resource: dict[str, str] = field(default_factory=dict)


def older(*, file: object, level: Iterable[str], rate: int | None, count: int | None, log_frequency: int | None) -> Any:
    """The older options as texts of `--trace-config`."""
    named = {"triton,file": file, "rate": rate, "count": count, "triton,log-frequency": log_frequency}
    texts = [f"{name}={value}" for name, value in named.items() if value is not None]
    return [*texts, *(f"level={name}" for name in level)]


def core_options(texts: Iterable[str], *, service: str) -> dict[str, Any]:
    """The `trace` object of `CoreOptions`; spans are those of `service` unless told otherwise. Raises `ConfigError`."""
    read = _Read()
    for text in texts:
        _take(text, read)
    values = read.values
    mode = values.get("mode", "triton")
    level = list(dict.fromkeys(read.level)) or ["OFF"]
    if "OFF" in level and len(level) > 1:
        raise ConfigError("level OFF stands alone")
    exported = None
    if mode == "opentelemetry":
        exported = _export(values, read.resource, service)
        if "TENSORS" in level:
            raise ConfigError("mode opentelemetry has no level TENSORS")
    elif level != ["OFF"] and "triton,file" not in values:
        raise ConfigError("a level needs triton,file=FILE, or mode=opentelemetry")
    rate = _number(values, "rate", default=1000)
    if level != ["OFF"] and rate == 0 and mode == "triton":
        raise ConfigError("rate: expected at least 1, got 0")
    return {
        "level": level,
        "rate": rate,
        "count": _number(values, "count", default=-1, least=-1),
        "log_frequency": _number(values, "triton,log-frequency", default=0),
        "file": values.get("triton,file") if mode == "triton" else None,
        "opentelemetry": exported,
    }


def _take(text: str, read: _Read) -> None:
    mode, comma, setting = text.partition(",")
    if not comma or mode not in MODES:
        mode, setting = "", text
    name, equals, value = setting.partition("=")
    known = {"": _GLOBAL, "triton": _TRITON, "opentelemetry": ("url", "resource", *_SIZES)}[mode]
    if not equals or not value or name not in known:
        raise ConfigError(f"expected {', '.join(_forms())}; got '{text}'")
    if name == "level":
        if value not in LEVELS:
            raise ConfigError(f"level: expected {', '.join(LEVELS)}, got '{value}'")
        read.level.append(value)
    elif name == "resource":
        key, equals, value = value.partition("=")
        if not key or not equals:
            raise ConfigError(f"expected opentelemetry,resource=NAME=VALUE, got '{text}'")
        read.resource[key] = value
    else:
        if name == "mode" and value not in MODES:
            raise ConfigError(f"mode: expected {' or '.join(MODES)}, got '{value}'")
        read.values[f"{mode},{name}" if mode else name] = value


def _forms() -> list[str]:
    modes = {"": _GLOBAL, "triton,": _TRITON, "opentelemetry,": ("url", "resource", *_SIZES)}
    return [f"{mode}{name}=" for mode, names in modes.items() for name in names]


def _export(values: dict[str, str], resource: dict[str, str], service: str) -> dict[str, Any]:
    sizes = {
        name: _number(values, f"opentelemetry,{name}", default=default, least=0 if name == "bsp_schedule_delay" else 1)
        for name, default in _SIZES.items()
    }
    if sizes["bsp_max_export_batch_size"] > sizes["bsp_max_queue_size"]:
        raise ConfigError("bsp_max_export_batch_size: expected at most bsp_max_queue_size")
    return {
        "url": values.get("opentelemetry,url", URL),
        "resource": list(({"service.name": service} | resource).items()),
        "queue_size": sizes["bsp_max_queue_size"],
        "batch_size": sizes["bsp_max_export_batch_size"],
        "delay_millis": sizes["bsp_schedule_delay"],
    }


def _number(values: dict[str, str], name: str, *, default: int, least: int = 0) -> int:
    text = values.get(name, str(default))
    try:
        number = int(text)
    except ValueError:
        raise ConfigError(f"{name}: expected a number, got '{text}'") from None
    if not least <= number <= MOST:
        raise ConfigError(f"{name}: expected {least} to {MOST}, got {number}")
    return number
