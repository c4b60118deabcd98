"""Checks a completed configuration message against the rules that Triton has for it."""

from __future__ import annotations

from typing import Any

from naiad.config.message import v2_name
from naiad.errors import ConfigError

LATER = {
    "sequence_batching": "sequence batching comes",
    "ensemble_scheduling": "ensembles come",
    "model_repository_agents": "repository agents come",
}
MAX_INSTANCES = 1024
"""Each is a process."""


def check(message: Any, *, name: str, source: str) -> None:
    """Raises `ConfigError` naming the field, what was expected and what came."""
    where = source or "configuration"

    def fail(field: str, text: str) -> None:
        raise ConfigError(f"{where}: {field}: {text}")

    if message.name and message.name != name:
        fail("name", f"expected the directory's name '{name}', got '{message.name}'")
    if message.max_batch_size < 0:
        fail("max_batch_size", f"expected 0 or more, got {message.max_batch_size}")
    for field, what in LATER.items():
        if message.HasField(field):
            fail(field, f"{what} with a later version of Naiad")
    if message.response_cache.enable and message.model_transaction_policy.decoupled:
        fail(
            "response_cache",
            f"Response Cache does not currently support model {name} with 'Decoupled' transaction policy. "
            "Please disable the response cache.",
        )
    if message.batch_input or message.batch_output:
        fail("batch_input", "ragged batches come with a later version of Naiad")
    for group in message.instance_group:
        if group.kind == 2 and group.gpus:
            fail("instance_group.gpus", f"expected none with kind KIND_CPU, got {list(group.gpus)}")
        if group.count < 1:
            fail("instance_group.count", f"expected 1 or more, got {group.count}")
    instances = sum(group.count * max(1, len(group.gpus)) for group in message.instance_group)
    if instances > MAX_INSTANCES:
        fail("instance_group.count", f"expected at most {MAX_INSTANCES} instances in all, got {instances}")
    _tensors(message, fail)
    _batching(message, fail)


def _tensors(message: Any, fail: Any) -> None:
    batching = message.max_batch_size > 0
    for kind, tensors in (("input", message.input), ("output", message.output)):
        seen: set[str] = set()
        for position, tensor in enumerate(tensors):
            field = f"{kind}[{position}]"
            if not tensor.name:
                fail(f"{field}.name", "expected a name, got none")
            field = f"{kind} '{tensor.name}'"
            if tensor.name in seen:
                fail(field, "the name stands twice")
            seen.add(tensor.name)
            if not v2_name(tensor.data_type):
                fail(f"{field}.data_type", "expected a datatype such as TYPE_FP32, got none")
            if not tensor.dims and not batching:
                fail(f"{field}.dims", "expected at least one dim where max_batch_size is 0, got none")
            for dim in tensor.dims:
                if dim < 1 and dim != -1:
                    fail(f"{field}.dims", f"expected dims of 1 or more, or -1, got {list(tensor.dims)}")
            if tensor.HasField("reshape"):
                _reshape(tensor, field, fail)
            if kind == "input" and tensor.allow_ragged_batch:
                fail(f"{field}.allow_ragged_batch", "ragged batches come with a later version of Naiad")


def _reshape(tensor: Any, field: str, fail: Any) -> None:
    before, after = list(tensor.dims), list(tensor.reshape.shape)
    if any(dim < 1 and dim != -1 for dim in after):
        fail(f"{field}.reshape", f"expected dims of 1 or more, or -1, got {after}")
    if before.count(-1) != after.count(-1):
        fail(f"{field}.reshape", f"expected as many variable dims as {before}, got {after}")

    def product(dims: list[int]) -> int:
        total = 1
        for dim in dims:
            total *= dim if dim != -1 else 1
        return total

    if product(before) != product(after):
        fail(f"{field}.reshape", f"expected as many elements as {before}, got {after}")


def _batching(message: Any, fail: Any) -> None:
    if not message.HasField("dynamic_batching"):
        return
    batching = message.dynamic_batching
    for size in batching.preferred_batch_size:
        if size < 1 or size > message.max_batch_size:
            fail(
                "dynamic_batching.preferred_batch_size",
                f"expected 1 to max_batch_size {message.max_batch_size}, got {size}",
            )
    _priorities(batching, fail)
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    if batching.preserve_ordering and any(policy.timeout_action == 1 for policy in policies):
        fail("dynamic_batching", "preserve_ordering does not go with timeout_action DELAY")
    if batching.preserve_ordering and batching.priority_levels > 1:
        fail("dynamic_batching", "preserve_ordering does not go with more than one priority level")


def _priorities(batching: Any, fail: Any) -> None:
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        fail("dynamic_batching.default_priority_level", f"expected 1 to priority_levels {levels}, got {default}")
    if default and not levels:
        fail("dynamic_batching.default_priority_level", f"expected none where priority_levels is 0, got {default}")
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= levels:
            fail("dynamic_batching.priority_queue_policy", f"expected levels of 1 to {levels}, got {level}")
