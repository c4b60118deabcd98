"""Reads trace files as Triton's summary tool does: elements by the id of their trace."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Trace:
    """The elements of one id."""

    head: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[str, int]] = field(default_factory=list)
    tensors: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """What happened, in the order of the file."""
        return [name for name, _ in self.events]


def read(path: Path) -> list[Trace]:
    """The traces of a file, which is a JSON array at any time."""
    found: dict[int, Trace] = {}
    for element in json.loads(path.read_text()):
        trace = found.setdefault(element["id"], Trace())
        if "model_name" in element:
            assert not trace.head, "one head a trace"
            trace.head = element
        trace.events += [(stamp["name"], stamp["ns"]) for stamp in element.get("timestamps", ())]
        if "activity" in element:
            trace.tensors.append((element["activity"], element["tensor"]))
    return list(found.values())
