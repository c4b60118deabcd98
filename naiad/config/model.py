"""The finished model configuration: checked, normalised, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from naiad.config.conflicts import Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorConfig:
    """One input or output; dims without the batch dimension."""

    name: str
    datatype: str
    """v2 name."""
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    optional: bool = False
    label_filename: str = ""

    @property
    def model_dims(self) -> tuple[int, ...]:
        """The dims that the model sees."""
        return self.dims if self.reshape is None else self.reshape


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """How long requests may wait and how many."""

    max_queue_size: int = 0
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    timeout_delays: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicBatching:
    """Merging of requests into batches."""

    preferred_batch_sizes: tuple[int, ...]
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    queue_policy: QueuePolicy = QueuePolicy()
    priority_levels: int = 0
    default_priority_level: int = 0
    priority_policies: Mapping[int, QueuePolicy] = field(default_factory=dict)
    """Of levels that have one of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGroup:
    """Instances on one kind of device."""

    kind: str
    """`KIND_CPU`, `KIND_GPU`, `KIND_MODEL` (AUTO is resolved)."""
    count: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpInput:
    """One input of a warm-up sample; dims as the model sees them, without the batch dimension."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    data: str
    """`zero`, `random` or `file`."""
    file: str
    """Below the model's folder `warmup`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpSample:
    """One request that every instance answers before it is READY."""

    name: str
    rows: int
    """Size of the batch; 0 where the model does not batch."""
    count: int
    inputs: tuple[WarmUpInput, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A model configuration that needs no further question."""

    name: str
    backend: str
    platform: str
    max_batch_size: int
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    dynamic_batching: DynamicBatching | None
    decoupled: bool
    """Whether a request has any number of responses."""
    response_cache: bool
    """Whether answers may come from the response cache."""
    instance_groups: tuple[InstanceGroup, ...]
    default_model_filename: str
    parameters: Mapping[str, str]
    warm_up: tuple[WarmUpSample, ...] = ()
    document: Mapping[str, object]
    """The whole configuration as `/config` prints it (W63)."""
    text: str
    """The same as config.pbtxt."""
    message: bytes
    """The same as an encoded `inference.ModelConfig` (W51)."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished configuration and where its values came from."""

    config: ModelConfig
    origins: Mapping[str, str]
    """Field path → `config.pbtxt`, `file`, `dry run` or `default`."""
    notes: tuple[str, ...]
    """What a user should know: why it does not batch, what was chosen."""
    conflicts: tuple[Conflict, ...] = ()
    """Where the sources of values contradict each other."""
