"""The table of plan(): what is done next for an environment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from naiad.control.environments.reconciler import Build, Remove, Wanted, plan

WANTED = Wanted(name="one", generation=2, observed_generation=2, deleted=False)


@pytest.mark.parametrize(
    ("change", "not_before", "expected"),
    [
        ({}, 0.0, None),
        ({"observed_generation": 0}, 0.0, Build()),
        ({"observed_generation": 1}, 0.0, Build()),
        ({"observed_generation": 1}, 101.0, None),
        ({"deleted": True}, 0.0, Remove()),
        ({"deleted": True, "observed_generation": 1}, 0.0, Remove()),
        ({"deleted": True}, 101.0, None),
    ],
)
def test_what_is_done_next(change, not_before, expected):
    assert plan(replace(WANTED, **change), not_before=not_before, now=100.0) == expected
