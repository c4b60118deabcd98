"""When a reload changes the instance groups and nothing else."""

from __future__ import annotations

import pytest

from naiad.config import pbtxt
from naiad.config.freeze import freeze
from naiad.config.model import Completed
from naiad.errors import ConfigError
from naiad.server import scaling

IO = """max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
"""


def partial(text: str):
    return pbtxt.parse(IO + text, "config.pbtxt")


@pytest.mark.parametrize(
    ("before", "after", "differ"),
    [
        ("", "instance_group { count: 2 }", True),
        ("instance_group { count: 2 }", "", True),
        ("instance_group { count: 2 }", "instance_group { count: 3 kind: KIND_CPU }", True),
        ("", "", False),
        ("instance_group { count: 2 }", "instance_group { count: 2 }", False),
        ("", "instance_group { count: 2 } dynamic_batching { }", False),
        ("", 'instance_group { count: 2 } parameters { key: "a" value { string_value: "b" } }', False),
        ("", "instance_group { count: 2 } default_model_filename: ''", False),
    ],
)
def test_only_groups_differ(before, after, differ):
    assert scaling.only_groups_differ(partial(before), partial(after)) is differ


def test_the_rest_of_a_finished_configuration_stays():
    config = freeze(partial("dynamic_batching { }").message, name="m", source="config.pbtxt")
    completed = Completed(config, {"max_batch_size": "dry run"}, ("a note",))
    after = scaling.with_groups(completed, partial("instance_group { count: 3 }"))
    assert [group.count for group in after.config.instance_groups] == [3]
    assert (after.origins, after.notes) == (completed.origins, completed.notes)
    document = dict(after.config.document)
    assert document.pop("instance_group")[0]["count"] == 3
    assert document == {key: value for key, value in config.document.items() if key != "instance_group"}
    with pytest.raises(ConfigError, match="instance_group"):
        scaling.with_groups(completed, partial("instance_group { count: -1 }"))


def test_configurations_are_no_files_of_the_model(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/model.pt").write_text("x")
    first = scaling.files_of(tmp_path)
    (tmp_path / "config.pbtxt").write_text("x")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/small.pbtxt").write_text("x")
    assert scaling.files_of(tmp_path) == first
    (tmp_path / "labels.txt").write_text("x")
    assert scaling.files_of(tmp_path) != first
