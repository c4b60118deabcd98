"""The worker's side of the golden frames; the core's tests read the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from naiad_worker import channel

FRAMES = json.loads((Path(__file__).resolve().parents[2] / "golden" / "frames.json").read_text())
KINDS = {channel.EXECUTE, channel.GRANT, channel.SEGMENT}


def frames(kind: str, direction: str) -> list[Any]:
    found = [f for f in FRAMES if f["kind"] == kind and f["direction"] == direction]
    assert found, f"the golden file has no {kind}"
    return [pytest.param(f["fields"], bytes.fromhex(f["hex"]), id=f["name"]) for f in found]


def tensor(entry: dict[str, Any]) -> tuple[Any, ...]:
    where = entry["range"]
    place = (where["segment"], where["offset"], where["length"])
    return (entry["tensor"], entry["datatype"], entry["request"], *place, tuple(entry["dims"]))


@pytest.mark.parametrize(("fields", "raw"), frames("EXECUTE", "core_to_worker"))
@pytest.mark.parametrize("room", [0, 65_536], ids=["exact", "reused-buffer"])
def test_execute_is_understood(fields, raw, room):
    frame = memoryview(raw + b"\xff" * room)
    kind, count = channel.unpack_header(frame, len(raw))
    assert kind == channel.EXECUTE
    calls = channel.unpack_execute(frame, len(raw), count)
    assert len(calls) == len(fields["calls"])
    for call, expected in zip(calls, fields["calls"], strict=True):
        area = expected["area"]
        assert (call.call, call.mode, call.rows) == (expected["call"], expected["mode"], expected["rows"])
        assert call.area == (area["segment"], area["offset"], area["length"])
        metas = [(r["meta"]["segment"], r["meta"]["offset"] | r["meta"]["length"] << 40) for r in expected["requests"]]
        heads = [(r["slot"], r["tag"], r["rows"]) for r in expected["requests"]]
        assert call.requests == [(*head, *meta) for head, meta in zip(heads, metas, strict=True)]
        assert call.entries == [tensor(entry) for entry in expected["entries"]]


def flags(record: dict[str, Any]) -> int:
    bits = {"final": channel.FINAL, "released": channel.RELEASED, "bare": channel.BARE}
    return sum(bit for name, bit in bits.items() if record.get(name))


@pytest.mark.parametrize(("fields", "raw"), frames("REPLY", "worker_to_core"))
def test_reply_is_said(fields, raw):
    records = [
        channel.pack_record(
            (r["call"], r["request"], r["status"], flags(r)),
            [tensor(entry) for entry in r["entries"]],
            r["text"].encode(),
            tuple(r["times"]),
        )
        for r in fields["records"]
    ]
    assert channel.pack_frame(channel.REPLY, len(records), b"".join(records)).hex() == raw.hex()


@pytest.mark.parametrize(("fields", "raw"), frames("NEED", "worker_to_core"))
def test_need_is_said(fields, raw):
    assert channel.pack_need(fields["call"], fields["bytes"]).hex() == raw.hex()


@pytest.mark.parametrize(("fields", "raw"), frames("GRANT", "core_to_worker"))
def test_grant_is_understood(fields, raw):
    assert channel.unpack_header(raw, len(raw)) == (channel.GRANT, 1)
    where = fields["range"]
    expected = (fields["call"], fields["status"], where["segment"], 0, where["offset"], where["length"])
    assert channel.GRANT_BODY.unpack_from(raw, 8) == expected


@pytest.mark.parametrize(("fields", "raw"), frames("SEGMENT", "core_to_worker"))
def test_segment_is_understood(fields, raw):
    assert channel.unpack_header(raw, len(raw)) == (channel.SEGMENT, 1)
    assert channel.SEGMENT_BODY.unpack_from(raw, 8) == (fields["segment"], 0, fields["size"])


@pytest.mark.parametrize(("fields", "raw"), frames("MALFORMED", "core_to_worker"))
@pytest.mark.parametrize("room", [0, 65_536], ids=["exact", "reused-buffer"])
def test_a_malformed_frame_is_refused(fields, raw, room):
    frame = memoryview(raw + b"\0" * room)
    if fields["why"].startswith("kind"):
        assert channel.unpack_header(frame, len(raw))[0] not in KINDS
        return
    with pytest.raises(channel.FrameError):
        _, count = channel.unpack_header(frame, len(raw))
        channel.unpack_execute(frame, len(raw), count)
