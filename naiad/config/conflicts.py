"""Where what was written, what the file declares and what the dry run saw contradict each other, and which counts.

The order of trust: what the user gives in a load call, config.pbtxt, the file, the dry run, a guess. One exception: an
output that a file declares otherwise than the model gives it is as the model gives it, for that is what clients get.
What makes a load fail is no conflict: it is refused where it is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from naiad.config.message import v2_name

FILE, DRY_RUN = "file", "dry run"
_NUMBERED = re.compile(r".*__(\d{1,9})|RESULT\[(\d{1,9})\]")
_KEYED = re.compile(r"RESULT\[([^\[\]]+)\]")


@dataclass(frozen=True, slots=True)
class Conflict:
    """One field on which sources differ."""

    field: str
    says: Mapping[str, Any]
    """Source → its value, the most trusted source first."""
    won: str
    """The source that counts."""

    def __str__(self) -> str:
        said = ", ".join(f"{source} says {value}" for source, value in self.says.items())
        return f"{self.field}: {said}; {self.won} counts"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"field": self.field, "says": dict(self.says), "won": self.won}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the file declares."""

    dims: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Of outputs by name, the batch included."""
    datatypes: Mapping[str, str] = field(default_factory=dict)
    """Of outputs by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Everything that says something of a configuration."""

    written: Any
    """The message as it was given."""
    source: str
    """What that is called."""
    inputs: Sequence[Mapping[str, Any]]
    """Inputs of the dry run, in the order of the written ones."""
    told: Told
    report: Mapping[str, Any] | None
    """What PROBED said; None before a dry run."""
    batching: bool


def place_of(name: str, position: int, names: Sequence[str]) -> int:
    """Which of the model's outputs a written one is: by name or path, else by the number in it, else by its place."""
    keyed = _KEYED.fullmatch(name)
    for called in (name, keyed[1] if keyed else ""):
        if called in names:
            return names.index(called)
    numbered = _NUMBERED.fullmatch(name)
    return int(numbered[1] or numbered[2]) if numbered else position


def _by_path(written: str, name: str) -> bool:
    """Whether one of the two names is made of a number or a path, so that they do not contradict each other."""
    return any(_NUMBERED.fullmatch(each) or _KEYED.fullmatch(each) for each in (written, name))


def clash(dims: Sequence[int], others: Sequence[int]) -> bool:
    """Whether no shape fits both; written dims of [1] may stand for none, which one cannot write."""
    if list(dims) == [1] and not others:
        return False
    return len(dims) != len(others) or any(
        -1 not in (dim, other) and dim != other for dim, other in zip(dims, others, strict=True)
    )


def find(sources: Sources) -> tuple[Conflict, ...]:
    """All conflicts, those of inputs first."""
    return (*_inputs(sources), *_outputs(sources))


def _inputs(sources: Sources) -> Iterator[Conflict]:
    """Written dims that are open where the file or the dry run knows one size only."""
    varying = sources.report["varying"] if sources.report is not None else {}
    for tensor, entry in zip(sources.written.input, sources.inputs, strict=False):
        written = _written_dims(tensor, batching=sources.batching)
        known, declared = list(entry["dims"]), bool(entry.get("declared"))
        vary = varying.get(tensor.name, [])
        fixed = [
            at
            for at, dim in enumerate(written)
            if dim == -1
            and (at > 0 or not sources.batching)
            and at < len(known)
            and (known[at] != -1 if declared else at < len(vary) and not vary[at])
        ]
        if fixed:
            source = FILE if declared else DRY_RUN
            says = [known[at] if at in fixed else dim for at, dim in enumerate(written)]
            shown = {sources.source: _shown(written, sources), source: _shown(says, sources)}
            yield Conflict(f"input.{tensor.name}.dims", shown, sources.source)


def _outputs(sources: Sources) -> Iterator[Conflict]:
    seen = sources.report["outputs"] if sources.report is not None else None
    names = [entry["name"] for entry in seen] if seen is not None else list(sources.told.dims)
    if not sources.written.output:
        for entry in seen or ():
            yield from _output(entry["name"], None, entry["name"], entry, sources)
        return
    for position, tensor in enumerate(sources.written.output):
        place = place_of(tensor.name, position, names)
        if place >= len(names):
            continue
        name = names[place]
        if name != tensor.name and not _by_path(tensor.name, name):
            says = {sources.source: tensor.name, DRY_RUN if seen is not None else FILE: name}
            yield Conflict(f"output.{tensor.name}.name", says, sources.source)
        yield from _output(tensor.name, tensor, name, seen[place] if seen is not None else None, sources)


def _output(
    shown_as: str, tensor: Any, name: str, seen: Mapping[str, Any] | None, sources: Sources
) -> Iterator[Conflict]:
    """Dims and datatype of an output: as written, as the file declares the model's `name`, as it was seen."""
    written = _written_dims(tensor, batching=sources.batching) if tensor is not None and tensor.dims else None
    datatype = v2_name(tensor.data_type) if tensor is not None else ""
    told, told_type = sources.told.dims.get(name), sources.told.datatypes.get(name)
    if written is not None:
        says = {sources.source: written}
        says |= {FILE: list(told)} if told is not None and clash(written, told) else {}
        says |= {DRY_RUN: list(seen["dims"])} if seen is not None and clash(written, seen["dims"]) else {}
        won = sources.source
    else:
        both = told is not None and seen is not None and clash(told, seen["dims"])
        says = {FILE: list(told or ()), DRY_RUN: list(seen["dims"])} if both and seen is not None else {}
        won = DRY_RUN
    if len(says) > 1:
        shown = {source: _shown(dims, sources) for source, dims in says.items()}
        yield Conflict(f"output.{shown_as}.dims", shown, won)
    if datatype and told_type and datatype != told_type:
        yield Conflict(f"output.{shown_as}.data_type", {sources.source: datatype, FILE: told_type}, sources.source)
    elif not datatype and told_type and seen is not None and seen["datatype"] != told_type:
        yield Conflict(f"output.{shown_as}.data_type", {FILE: told_type, DRY_RUN: seen["datatype"]}, DRY_RUN)


def _written_dims(tensor: Any, *, batching: bool) -> list[int]:
    """Dims as the model sees them."""
    dims = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
    return [-1, *dims] if batching else dims


def _shown(dims: Sequence[int], sources: Sources) -> list[int]:
    """Dims as one writes them."""
    return list(dims[1:] if sources.batching else dims)
