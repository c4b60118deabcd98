from __future__ import annotations

import json

import pytest

from naiad import keys
from naiad.errors import ConfigError
from naiad.server import keys_file


def test_the_rows_become_a_snapshot_with_the_generation(tmp_path):
    row = keys.row(keys.make_key(), scopes=["infer"], services=["*"], expires=1790000000)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [row | {"note": "mine"}]}))
    assert keys_file.read(path, generation=3) == {"generation": 3, "keys": [row]}


def test_an_absent_file_names_the_command_that_makes_one(tmp_path):
    path = tmp_path / "keys.json"
    with pytest.raises(ConfigError, match=f"naiad key create --keys-file {path}"):
        keys_file.read(path, generation=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "Expecting property name"),
        ("[]", "expected an object with a list 'keys'"),
        ('{"keys": {}}', "expected an object with a list 'keys'"),
        ('{"keys": [1]}', r"keys\[0\]: expected id, digest and scopes"),
        ('{"keys": [{"id": "x", "digest": "y"}]}', r"keys\[0\]: expected id, digest and scopes"),
        ("\udcff", "codec can't decode"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(tmp_path, text, expected):
    path = tmp_path / "keys.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=f"keys file '{path}': .*{expected}"):
        keys_file.read(path, generation=1)


def test_the_stamp_changes_with_the_file(tmp_path):
    path, fresh = tmp_path / "keys.json", tmp_path / "fresh"
    assert keys_file.stamp(path) is None
    path.write_text("a")
    before = keys_file.stamp(path)
    assert keys_file.stamp(path) == before
    fresh.write_text("b")
    fresh.replace(path)  # the way `naiad key create` writes
    assert keys_file.stamp(path) not in (None, before)
