from __future__ import annotations

import json
from typing import Any

import pytest

from naiad.server.states import LOADING, READY, UNAVAILABLE, States


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
    states.know("m")
    assert told.rows == [{"name": "m"}]


def test_w66_one_row_a_version_in_order(states, told):
    for version in (10, 2):
        states.set("m", version, LOADING)
    states.set("m", 2, UNAVAILABLE, "broken")
    states.know("a")
    assert told.rows == [
        {"name": "a"},
        {"name": "m", "version": 2, "state": UNAVAILABLE, "reason": "broken"},
        {"name": "m", "version": 10, "state": LOADING},
    ]


def test_not_ready_before_the_models_of_the_start_were_tried(states, told):
    states.know("m")
    assert told.ready is False
    states.started()
    assert told.ready is True


def test_strict_readiness_waits_for_what_was_asked_for(states, told):
    states.started()
    states.know("idle")
    states.want("m", wanted=True)
    assert told.ready is False
    states.set("m", 1, READY)
    assert told.ready is True
    states.set("m", 1, UNAVAILABLE, "the worker process ended")
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


def test_what_is_gone_is_forgotten(states, told):
    states.set("m", 1, READY)
    assert states.is_ready("m")
    states.forget("m")
    assert told.rows == []
    assert not states.is_ready("m")
