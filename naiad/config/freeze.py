"""Normalises a completed message and freezes it into a `ModelConfig`."""

from __future__ import annotations

from typing import Any

from google.protobuf import text_format

from naiad.config import json_form, validate, warmup
from naiad.config.message import v2_name
from naiad.config.model import DynamicBatching, InstanceGroup, ModelConfig, QueuePolicy, TensorConfig

KINDS = {0: "KIND_AUTO", 1: "KIND_GPU", 2: "KIND_CPU", 3: "KIND_MODEL"}


def normalise(message: Any, *, name: str) -> None:
    """Fills in what Triton fills in, so that `/config` shows it."""
    message.name = message.name or name
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    elif message.version_policy.HasField("latest") and message.version_policy.latest.num_versions == 0:
        message.version_policy.latest.num_versions = 1
    if message.HasField("dynamic_batching") and message.max_batch_size > 0:
        if not message.dynamic_batching.preferred_batch_size:
            message.dynamic_batching.preferred_batch_size.append(message.max_batch_size)
    if not message.instance_group:
        message.instance_group.add(name=name)
    for position, group in enumerate(message.instance_group):
        group.name = group.name or f"{name}_{position}"
        group.count = group.count or 1
        if group.kind == 0:
            group.kind = 1 if group.gpus else 2


def freeze(message: Any, *, name: str, source: str) -> ModelConfig:
    """The finished configuration; raises `ConfigError`."""
    normalise(message, name=name)
    validate.check(message, name=name, source=source)
    parameters = {key: message.parameters[key].string_value for key in message.parameters}
    inputs = tuple(_input(tensor) for tensor in message.input)
    return ModelConfig(
        name=name,
        backend=message.backend,
        platform=message.platform,
        max_batch_size=message.max_batch_size,
        inputs=inputs,
        outputs=tuple(_output(tensor) for tensor in message.output),
        dynamic_batching=_dynamic(message),
        decoupled=message.model_transaction_policy.decoupled,
        response_cache=message.response_cache.enable,
        instance_groups=tuple(_group(group) for group in message.instance_group),
        default_model_filename=message.default_model_filename,
        parameters=parameters,
        warm_up=warmup.samples(message, inputs, source=source),
        document=json_form.to_dict(message),
        text=text_format.MessageToString(message),
        message=message.SerializeToString(),
    )


def _input(tensor: Any) -> TensorConfig:
    return TensorConfig(
        name=tensor.name,
        datatype=v2_name(tensor.data_type),
        dims=tuple(tensor.dims),
        reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        optional=tensor.optional,
    )


def _output(tensor: Any) -> TensorConfig:
    return TensorConfig(
        name=tensor.name,
        datatype=v2_name(tensor.data_type),
        dims=tuple(tensor.dims),
        reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        label_filename=tensor.label_filename,
    )


def _dynamic(message: Any) -> DynamicBatching | None:
    # With max_batch_size 0 an empty dynamic_batching loads without effect.
    if not message.HasField("dynamic_batching") or message.max_batch_size == 0:
        return None
    batching = message.dynamic_batching
    levels = batching.priority_queue_policy
    return DynamicBatching(
        preferred_batch_sizes=tuple(sorted(batching.preferred_batch_size)),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        preserve_ordering=batching.preserve_ordering,
        queue_policy=_policy(batching.default_queue_policy),
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        priority_policies={level: _policy(levels[level]) for level in sorted(levels)},
    )


def _policy(policy: Any) -> QueuePolicy:
    return QueuePolicy(
        max_queue_size=policy.max_queue_size,
        default_timeout_us=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        timeout_delays=policy.timeout_action == 1,
    )


def _group(group: Any) -> InstanceGroup:
    return InstanceGroup(kind=KINDS[group.kind], count=group.count, gpus=tuple(group.gpus))
