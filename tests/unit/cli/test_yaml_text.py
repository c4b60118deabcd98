from __future__ import annotations

import pytest

from naiad.cli.yaml_text import yaml_text

DOCUMENT = {
    "name": "no",
    "empty": {},
    "none": None,
    "dims": [-1, 3, 224],
    "input": [{"name": "x: [", "dims": [4], "reshape": {"shape": []}}, {"name": "y\x1b\x7f\x85\u2028\U000e0001é😀"}],
    "deep": {"a": {"b": [[1, 2], []], "on": True}, "input.x": "#", "0x1f": 0.5, "": -7},
    "text": 'a\n"b"\\\t: ',
    "inline": [{}, "-", 1e-06],
}
TEXT = r"""name: "no"
empty: {}
none: null
dims: [-1, 3, 224]
input:
- name: "x: ["
  dims: [4]
  reshape:
    shape: []
- name: "y\u001b\u007f\u0085\u2028\U000e0001é😀"
deep:
  a:
    b:
    - [1, 2]
    - []
    "on": true
  "input.x": "#"
  "0x1f": 0.5
  "": -7
text: "a\n\"b\"\\\t: "
inline:
- {}
- "-"
- 1e-06
"""


def test_a_document_is_written_in_blocks():
    assert yaml_text(DOCUMENT) == TEXT


def test_a_reader_of_yaml_finds_the_same_document():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install pyyaml")
    expected = {**DOCUMENT, "inline": [{}, "-", "1e-06"]}  # YAML 1.1 wants a point in a float, YAML 1.2 does not
    assert yaml.safe_load(yaml_text(DOCUMENT)) == expected
