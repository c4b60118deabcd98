"""Reads what processes used from /proc: CPU seconds, resident memory, and whether others disturbed the run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process tree had used at one moment."""

    server_cpu: float
    """CPU seconds of the server process."""
    worker_cpu: float
    """CPU seconds of its descendants."""
    server_rss: int
    """Resident bytes of the server process."""
    worker_rss: int
    """Proportional resident bytes (PSS) of its descendants, so that shared pages count once."""


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def descendants(pid: int) -> list[int]:
    """All living descendants of a process, in no order."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


def cpu_seconds(pid: int) -> float:
    """User and system CPU seconds of one process; 0 if it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def rss_bytes(pid: int) -> int:
    """Resident bytes of one process; 0 if it is gone."""
    fields = _stat(pid)
    return int(fields[21]) * PAGE if fields else 0


def pss_bytes(pid: int) -> int:
    """Proportional resident bytes of one process; its RSS where the kernel does not say."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return rss_bytes(pid)


def usage(pid: int) -> Usage:
    """What the tree under `pid` has used until now."""
    below = descendants(pid)
    return Usage(
        server_cpu=cpu_seconds(pid),
        worker_cpu=sum(map(cpu_seconds, below)),
        server_rss=rss_bytes(pid),
        worker_rss=sum(map(pss_bytes, below)),
    )


@dataclass(frozen=True, slots=True)
class MachineTime:
    """Jiffies of the whole machine: busy, and stolen by the hypervisor."""

    busy: float
    steal: float


def machine_time() -> MachineTime:
    """CPU seconds of the whole machine since boot."""
    fields = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return MachineTime(busy=(user + nice + system + irq + softirq) / TICKS, steal=steal / TICKS)


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def machine() -> dict[str, object]:
    """The machine and the checkout, for the head of a table."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit,
    }


def write(folder: Path, result: dict[str, Any], text: str, *, suffix: str = "") -> None:
    """Writes a result beside its table, named after the day and the commit, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{result['date']}-{result['machine']['commit']}{suffix}"
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)
    print(text)
