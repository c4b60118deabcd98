from __future__ import annotations

import json
from typing import Any

import pytest

from naiad.server.states import LOADING, READY, UNAVAILABLE, UNLOADING, States


class Told:
    """What the core was told last."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.ready: bool | None = None

    def index(self, document: bytes) -> None:
        self.rows = json.loads(document)

    def readiness(self, ready: bool) -> None:
        self.ready = ready


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def states(told: Told) -> States:
    return States(told.index, told.readiness, strict=True)


def test_w66_a_model_that_was_never_loaded_is_only_a_name(states, told):
    states.look({"m": ""})
    assert told.rows == [{"name": "m"}]


def test_w66_a_model_in_two_repositories_is_unavailable_without_a_version(states, told):
    text = "model appears in two or more repositories"
    states.look({"m": text, "n": ""})
    assert told.rows == [{"name": "m", "state": UNAVAILABLE, "reason": text}, {"name": "n"}]
    states.look({"m": "", "n": ""})
    assert told.rows == [{"name": "m"}, {"name": "n"}]


def test_w66_what_is_taken_out_of_the_repository_goes_unless_somebody_asked_for_it(states, told):
    states.look({"idle": "", "loaded": "", "failed": ""})
    states.set("loaded", 1, READY)
    states.want("failed", wanted=True)
    states.fail("failed", "broken")
    states.look({})
    assert [row["name"] for row in told.rows] == ["failed", "loaded"]


def test_w66_one_row_a_version_in_order(states, told):
    for version in (10, 2):
        states.set("m", version, LOADING)
    states.set("m", 2, UNAVAILABLE, "broken")
    states.look({"a": ""})
    assert told.rows == [
        {"name": "a"},
        {"name": "m", "version": 2, "state": UNAVAILABLE, "reason": "broken"},
        {"name": "m", "version": 10, "state": LOADING},
    ]


def test_not_ready_before_the_models_of_the_start_were_tried(states, told):
    states.look({"m": ""})
    assert told.ready is False
    states.started()
    assert told.ready is True


def test_strict_readiness_waits_for_what_was_asked_for(states, told):
    states.started()
    states.look({"idle": ""})
    states.want("m", wanted=True)
    assert told.ready is False
    states.set("m", 1, READY)
    assert told.ready is True
    states.impair("m", 1, "the worker process ended", down=True)
    assert told.ready is False
    states.impair("m", 1, "", down=False)
    assert told.ready is True
    states.set("m", 1, UNAVAILABLE, "broken")
    assert told.ready is False
    states.want("m", wanted=False)
    assert told.ready is True


def test_readiness_that_is_not_strict_asks_for_no_model(told):
    states = States(told.index, told.readiness, strict=False)
    states.want("m", wanted=True)
    assert told.ready is False
    states.started()
    assert told.ready is True


def test_w69_a_failed_reload_leaves_the_server_ready(states, told):
    states.started()
    states.want("m", wanted=True)
    states.set("m", 1, READY)
    states.want("m", wanted=True)
    states.fail("m", "broken")
    assert told.ready is True
    assert told.rows == [{"name": "m", "version": 1, "state": READY, "reason": "reload failed: broken"}]
    states.want("m", wanted=True)
    states.kept("m", 1, "broken in version 1")
    assert told.ready is True
    assert told.rows[0]["reason"] == "reload failed: broken in version 1"
    states.set("m", 1, READY)
    assert told.rows == [{"name": "m", "version": 1, "state": READY}]


def test_a_model_that_failed_as_a_whole_says_why(states, told):
    states.started()
    states.want("m", wanted=True)
    states.fail("m", "no version folder")
    assert told.rows == [{"name": "m", "state": UNAVAILABLE, "reason": "no version folder"}]
    assert told.ready is False


def test_a_made_up_name_leaves_no_trace(states, told):
    states.started()
    states.want("../x", wanted=False)
    states.want("nope", wanted=True)
    states.missing("nope", "failed to poll")
    assert told.rows == []
    assert told.ready is True


def test_a_name_that_the_start_misses_is_shown(states, told):
    states.want("typo", wanted=True)
    states.missing("typo", "failed to poll")
    states.started()
    assert told.rows == [{"name": "typo", "state": UNAVAILABLE, "reason": "failed to poll"}]
    assert told.ready is False


def test_going_down_is_for_good(states, told):
    states.started()
    assert told.ready is True
    states.close()
    assert told.ready is False
    states.set("m", 1, READY)
    states.started()
    assert told.ready is False


def test_w9_one_version_down_is_not_ready_though_another_serves(states, told):
    states.started()
    states.want("m", wanted=True)
    states.set("m", 1, READY)
    states.set("m", 2, READY)
    states.impair("m", 2, "1 of 2 workers are lost", down=False)
    assert told.ready is True
    assert told.rows[1] == {"name": "m", "version": 2, "state": READY, "reason": "1 of 2 workers are lost"}
    states.impair("m", 2, "signal 9", down=True)
    assert told.ready is False
    assert told.rows[1]["state"] == UNAVAILABLE


def test_w9_unloaded_models_do_not_count(states, told):
    states.started()
    states.want("m", wanted=True)
    states.fail("m", "broken")
    assert told.ready is False
    states.want("m", wanted=False)
    assert told.ready is True


def test_w70_an_unloaded_version_goes_through_unloading(states, told):
    states.set("m", 1, READY)
    states.set("m", 1, UNLOADING)
    assert told.rows == [{"name": "m", "version": 1, "state": UNLOADING}]
    states.unloaded("m", 1)
    assert told.rows == [{"name": "m", "version": 1, "state": UNAVAILABLE, "reason": "unloaded"}]


def test_w70_a_load_that_overtakes_an_unload_is_not_undone(states, told):
    states.set("m", 1, UNLOADING)
    states.set("m", 1, LOADING)
    states.unloaded("m", 1)
    assert told.rows == [{"name": "m", "version": 1, "state": LOADING}]


def test_a_failed_load_after_an_unload_says_why(states, told):
    states.set("m", 1, UNAVAILABLE, "unloaded")
    states.want("m", wanted=True)
    states.fail("m", "broken")
    assert told.rows == [{"name": "m", "version": 1, "state": UNAVAILABLE, "reason": "broken"}]


def test_what_is_gone_is_forgotten_once_it_is_unloaded(states, told):
    states.set("m", 1, READY)
    assert states.is_ready("m")
    states.set("m", 1, UNLOADING)
    states.gone("m")
    assert told.rows == [{"name": "m", "version": 1, "state": UNLOADING}]
    states.unloaded("m", 1)
    assert told.rows == []
    assert not states.is_ready("m")
    states.gone("m")  # of a model that is not known any more
