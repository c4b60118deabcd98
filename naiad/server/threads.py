"""How many threads a model may use for one operation: one, a number, or its instances' share of the processors."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from naiad.errors import ConfigError

AUTO = "auto"
MOST = 1024
OWN = "naiad.threads"
"""Naiad's own parameter, of any backend; it goes before those that Triton's backends have."""
TRITONS = ("INTRA_OP_THREAD_COUNT", "intra_op_thread_count", "NUM_THREADS", "TF_NUM_INTRA_THREADS")
"""Parameters of Triton's backends, in which 0 leaves the number to the framework: here that is `auto`."""
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What libraries below the frameworks read."""


def parse(text: str, what: str) -> int | None:
    """A number of threads, None for `auto`; raises `ConfigError` that names `what`."""
    if text == AUTO:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= MOST:
        raise ConfigError(f"{what}: expected {AUTO} or 1 to {MOST}, got '{text}'")
    return number


def of_model(message: Any, default: str, *, source: str = "") -> int:
    """Threads of each instance of a model; `default` is what `--model-threads` says. Raises `ConfigError`."""
    wanted = parse(default, "option --model-threads")
    for name in (OWN, *TRITONS):
        if name in message.parameters:
            text = message.parameters[name].string_value
            text = AUTO if text == "0" and name != OWN else text
            wanted = parse(text, f"{source or 'configuration'}: parameters '{name}'")
            break
    return wanted if wanted is not None else share(instances(message))


def share(count: int) -> int:
    """Threads for each of `count` instances, at least one."""
    return max(1, int(processors() / count))


def instances(message: Any) -> int:
    """How many instances a configuration asks for that need not be complete."""
    counts: list[int] = [max(1, group.count) * max(1, len(group.gpus)) for group in message.instance_group]
    return max(1, sum(counts))


def processors(root: Path = Path("/")) -> float:
    """Processors that this process may use: its affinity, bounded by the quotas of its control groups (v2, v1)."""
    return min([len(os.sched_getaffinity(0)), *_quotas(root)])


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _upwards(mounted, path):
                yield _quota(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for name in dict.fromkeys((controllers, "cpu")):
                for folder in _upwards(mounted / name, path):
                    yield _quota(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it, whose quotas hold too; in a container the path may lie outside it."""
    inner = Path(path.lstrip("/"))
    yield from (top / folder for folder in (inner, *inner.parents)) if ".." not in inner.parts else (top,)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _quota(words: list[str]) -> float:
    """Quota and period as processors; endless where none is set (`max`, -1)."""
    try:
        quota, period = map(int, words)
    except ValueError:
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf
