"""The way of a request stands in the files that the documentation names, each stage calling the next in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "crates" / "core" / "src"
WORKER = ROOT / "naiad" / "_worker" / "naiad_worker"

# Each stage: the file, and calls that stand in it in this order.
STAGES = [
    (CORE / "http" / "mod.rs", [r"routes::find|routes::", r"gate"]),
    (CORE / "http" / "infer.rs", [r"limits::read", r"codec::decode", r"engine\.infer", r"codec::encode"]),
    (
        CORE / "engine.rs",
        [r"registry\.find\(", r"model\.check\(", r"admission\.admit\(", r"scheduler\.schedule\("],
    ),
    (CORE / "scheduler" / "dynamic.rs", [r"max_batch"]),
    (CORE / "scheduler" / "batch.rs", [r"arena"]),
    (CORE / "instance" / "worker.rs", [r"send"]),
    (WORKER / "main.py", [r"unpack_execute", r"_backend\.execute", r"pack_record"]),
    (WORKER / "backends" / "pytorch.py", [r"from_numpy", r"inference_mode"]),
]


@pytest.mark.parametrize(("path", "calls"), STAGES, ids=[path.name for path, _ in STAGES])
def test_each_stage_calls_the_next(path: Path, calls: list[str]) -> None:
    text = path.read_text()
    at = 0
    for call in calls:
        found = re.compile(call).search(text, at)
        assert found, f"{path.relative_to(ROOT)}: '{call}' does not follow what stands before it"
        at = found.end()


def test_the_engine_is_exactly_four_stages() -> None:
    text = (CORE / "engine.rs").read_text()
    body = re.search(r"pub async fn infer\(.*?\{\n(.*?)\n    \}\n", text, re.DOTALL)
    assert body
    assert len(body[1].splitlines()) == 4
