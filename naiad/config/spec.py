"""What the core is told of a model version (`ModelSpec`), made from its configuration."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from naiad.config.model import ModelConfig, QueuePolicy, TensorConfig

DEFAULT_QUEUE_BOUND = 65_536


def model_spec(
    config: ModelConfig,
    *,
    version: int,
    workers: Sequence[int],
    labels: Mapping[str, Sequence[str]],
    hold_until: int = 0,
) -> dict[str, Any]:
    """The JSON document of `Core.publish`; `default_version` and `load_us` wait for who knows them."""
    bound = DEFAULT_QUEUE_BOUND
    scheduler: dict[str, Any] = {"kind": "direct"}
    if config.dynamic_batching is not None:
        dynamic = config.dynamic_batching
        policy = dynamic.queue_policy
        # With priorities the bound of the configuration is that of each level.
        if policy.max_queue_size and not dynamic.priority_levels:
            bound = min(bound, policy.max_queue_size)
        scheduler = {
            "kind": "dynamic",
            "preferred_batch_sizes": list(dynamic.preferred_batch_sizes),
            "max_queue_delay_us": dynamic.max_queue_delay_us,
            "preserve_ordering": dynamic.preserve_ordering,
            "default_timeout_us": policy.default_timeout_us,
            "allow_timeout_override": policy.allow_timeout_override,
            "timeout_delays": policy.timeout_delays,
            "priority_levels": dynamic.priority_levels,
            "default_priority_level": dynamic.default_priority_level,
            "priority_policies": [_policy(level, own) for level, own in dynamic.priority_policies.items()],
            "level_queue_size": (policy.max_queue_size or None) if dynamic.priority_levels else None,
            "hold_until": hold_until,
        }
    return {
        "name": config.name,
        "version": version,
        "platform": config.platform or config.backend,
        "max_batch_size": config.max_batch_size,
        "inputs": [_tensor(tensor, ()) for tensor in config.inputs],
        "outputs": [_tensor(tensor, labels.get(tensor.name, ())) for tensor in config.outputs],
        "scheduler": scheduler,
        "max_queue_size": bound,
        "decoupled": config.decoupled,
        "reads_requests": config.backend == "python",
        "response_cache": config.response_cache,
        "config": json.dumps(config.document, separators=(",", ":")),
        "config_message": base64.b64encode(config.message).decode(),
        "workers": list(workers),
        "default_version": False,
        "metric_tags": _strings(config.document.get("metric_tags")),
        "load_us": 0,
    }


def _strings(tags: object) -> dict[str, str]:
    return {str(name): str(value) for name, value in tags.items()} if isinstance(tags, Mapping) else {}


def _policy(level: int, policy: QueuePolicy) -> dict[str, Any]:
    return {
        "level": level,
        "max_queue_size": policy.max_queue_size or None,
        "default_timeout_us": policy.default_timeout_us,
        "allow_timeout_override": policy.allow_timeout_override,
        "timeout_delays": policy.timeout_delays,
    }


def _tensor(tensor: TensorConfig, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "dims": list(tensor.dims),
        "reshape": None if tensor.reshape is None else list(tensor.reshape),
        "optional": tensor.optional,
        "labels": list(labels),
    }
