from __future__ import annotations

import pytest

from naiad.config import pbtxt
from naiad.repository.versions import chosen, numbered


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [7]),
        ("latest { }", [7]),
        ("latest { num_versions: 2 }", [3, 7]),
        ("latest { num_versions: 9 }", [1, 3, 7]),
        ("all { }", [1, 3, 7]),
        ("specific { versions: [ 3, 1, 8 ] }", [1, 3]),
        ("specific { versions: [ 8 ] }", []),
        ("specific { }", []),
    ],
)
def test_the_version_policy_chooses(policy, served):
    message = pbtxt.parse(f"version_policy {{ {policy} }}", "x").message
    assert chosen(message.version_policy, [1, 3, 7]) == served
    assert chosen(message.version_policy, []) == []


def test_what_is_no_version_is_told_apart(tmp_path):
    for name in ("1", "12", "01", "0", "v2", "configs", "warmup", "initial_state", "__pycache__", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "3").write_text("a file")
    assert numbered(tmp_path) == ([1, 12], ["0", "01", "v2"])


def test_a_version_that_fits_no_number_of_the_protocol_is_ignored(tmp_path):
    (tmp_path / "9223372036854775807").mkdir()
    (tmp_path / "9223372036854775808").mkdir()
    (tmp_path / ("9" * 200)).mkdir()
    assert numbered(tmp_path) == ([9223372036854775807], ["9223372036854775808", "9" * 200])
