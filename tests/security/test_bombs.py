"""B6, B7: bodies that open, or add up, to far more than they are; refused early, and nothing is kept of them."""

from __future__ import annotations

import gzip
import json
import random
import zlib

import pytest

MIB = 1 << 20


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Ten megabytes that open to ten gigabytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    # A piece says nothing of those before it, so that one can stand for all; nobody gets as far as the checksum.
    piece = packer.compress(bytes(4 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + piece * 2560


def _peak(server) -> int:
    """The most resident memory so far, in bytes."""
    return _memory(server, "VmHWM:")


def _memory(server, name: str) -> int:
    with open(f"/proc/{server.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


@pytest.mark.parametrize("headers", [{}, {"Inference_Header_Content_Length": "100"}], ids=["json", "binary"])
def test_b7_a_bomb_is_refused_within_bounds(server, bomb, headers):
    assert 9 * MIB < len(bomb) < 11 * MIB
    before = _peak(server)
    answer = server.post("/v2/models/m/infer", bomb, Content_Encoding="gzip", **headers)
    assert answer.status == 400
    assert "opens to far more" in answer.error
    assert _peak(server) - before < 80 * MIB


def test_w23_the_limit_counts_what_a_body_opens_to(server):
    # A megabyte that does not compress makes the rest an honest body.
    body = gzip.compress(random.Random(7).randbytes(MIB) + bytes(64 * MIB))
    answer = server.post("/v2/models/m/infer", body, Content_Encoding="gzip")
    text = "Decompressed data size exceeds the maximum allowed value of 67108864 bytes. "
    assert (answer.status, answer.error) == (400, text + "Use --http-max-input-size to increase the limit.")


def test_b7_a_thousand_failures_keep_nothing(server):
    cut_off = gzip.compress(bytes(MIB))[:-1]

    def fail(times: int) -> None:
        for _ in range(times):
            assert server.post("/v2/models/m/infer", cut_off, Content_Encoding="gzip").status == 400
            assert server.post("/v2/models/m/infer", cut_off, Content_Encoding="deflate").status == 400

    fail(50)
    before = _memory(server, "VmRSS:")
    fail(500)
    assert _memory(server, "VmRSS:") - before < 16 * MIB


@pytest.mark.parametrize("names", [["OUTPUT0"] * 100_000, [f"o{at}" for at in range(100_000)]], ids=["one", "many"])
def test_b6_a_flood_of_outputs_is_refused(server, names):
    tensor = {"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": [0.0] * 16}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": name} for name in names]}).encode()
    before = _memory(server, "VmRSS:")
    answer = server.post("/v2/models/m/infer", body)
    assert answer.status == 400
    assert len(answer.body) < 1000
    assert _memory(server, "VmRSS:") - before < 32 * MIB
