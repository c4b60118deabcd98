"""A reload that changes nothing but the instance groups: workers come or go, everything else stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naiad.config import pbtxt
from naiad.config.freeze import freeze
from naiad.config.message import ModelConfigMessage
from naiad.config.model import Completed
from naiad.config.pbtxt import PartialConfig
from naiad.repository.local import Snapshot, snapshot

_GROUPS = frozenset({"instance_group"})


def files_of(directory: Path) -> Snapshot:
    """The files of a model but its configurations, which are compared by what they say."""
    files: Mapping[str, tuple[int, ...]] = snapshot(directory)
    return {name: stamp for name, stamp in files.items() if name != "config.pbtxt" and not name.startswith("configs")}


def only_groups_differ(before: PartialConfig, after: PartialConfig) -> bool:
    """Whether two configurations ask for other instances and agree in everything else."""
    if list(before.message.instance_group) == list(after.message.instance_group):
        return False
    return before.given - _GROUPS == after.given - _GROUPS and _rest(before) == _rest(after)


def _rest(partial: PartialConfig) -> Any:
    message = ModelConfigMessage()
    message.CopyFrom(partial.message)
    del message.instance_group[:]
    return message


def with_groups(completed: Completed, partial: PartialConfig) -> Completed:
    """A finished configuration with the groups of another one; raises `ConfigError`."""
    message = pbtxt.parse(completed.config.text, partial.source).message
    del message.instance_group[:]
    message.instance_group.extend(partial.message.instance_group)
    config = freeze(message, name=completed.config.name, source=partial.source)
    return dataclasses.replace(completed, config=config)
