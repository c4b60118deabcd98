"""The table of plan(): what is done next in each situation, and that nothing is asked of the world."""

from __future__ import annotations

from dataclasses import replace

import pytest

from naiad.control.engines.tensor import ModelState
from naiad.control.services.reconciler import (
    Attempt,
    Forget,
    Load,
    Prepare,
    Remove,
    Report,
    Seen,
    Unload,
    Wait,
    Wanted,
    plan,
)

SERVICE = Wanted(name="digits", generation=3, observed_generation=0, version=1, state="Starting", deleted=False)
SEEN = Seen(files=True, boot_id="one", model=None, attempt=None, now=100.0)
READY = ModelState(state="READY", reason="")
LOST = ModelState(state="UNAVAILABLE", reason="the worker crashed 5 times in 10 min")
UNLOADED = ModelState(state="UNAVAILABLE", reason="unloaded")
LATER = Attempt(generation=3, boot_id="one", failures=2, not_before=101.0, final=False)
WAITING = Report(state="Starting", step="waiting for the server")
BUILDING = Wait(step="waiting for environment 'small' (BUILDING)")
IS_READY = Report(state="Ready", step="Ready")

LIVE = [
    ("a new service gets its files", {"state": "Pending"}, {"files": False}, Prepare()),
    ("files need no server", {"state": "Pending"}, {"files": False, "boot_id": None}, Prepare()),
    ("without its environment it waits", {"state": "Pending"}, {"files": False, "waits": BUILDING}, BUILDING),
    ("and says that once", {"state": "Preparing", "step": BUILDING.step}, {"files": False, "waits": BUILDING}, None),
    ("it says what changed", {"state": "Preparing", "step": "other"}, {"files": False, "waits": BUILDING}, BUILDING),
    ("an environment that fails later stops nothing", {}, {"waits": BUILDING}, Load()),
    ("with files it is loaded", {}, {}, Load()),
    ("without a server it says that it waits", {"state": "Pending"}, {"boot_id": None}, WAITING),
    ("and says it once", {}, {"boot_id": None}, None),
    ("a ready one whose server went is starting", {"state": "Ready"}, {"boot_id": None}, WAITING),
    ("a failed one stays failed while there is no server", {"state": "Failed"}, {"boot_id": None}, None),
    ("a model found ready is reported", {}, {"model": READY}, IS_READY),
    ("a settled one is left alone", {"state": "Ready", "observed_generation": 3}, {"model": READY}, None),
    ("a new generation is reported", {"state": "Ready", "observed_generation": 2}, {"model": READY}, IS_READY),
    ("one that loads is left alone", {}, {"model": ModelState(state="LOADING", reason="")}, None),
    ("one that unloads is left alone", {}, {"model": ModelState(state="UNLOADING", reason="")}, None),
    ("an unloaded one is loaded", {"state": "Ready"}, {"model": UNLOADED}, Load()),
    ("one that a new server does not know is loaded", {"state": "Ready", "observed_generation": 3}, {}, Load()),
    ("one that was lost says why", {"state": "Ready"}, {"model": LOST}, Report("Failed", "Failed", LOST.reason)),
    ("a failed one is tried again", {"state": "Failed"}, {"model": LOST}, Load()),
    ("after a failure it waits", {"state": "Failed"}, {"attempt": LATER}, None),
    ("and then tries again", {"state": "Failed"}, {"attempt": LATER, "now": 101.0}, Load()),
    ("a final failure stays", {"state": "Failed"}, {"attempt": replace(LATER, final=True), "now": 1e9}, None),
    ("until the service changes", {"generation": 4}, {"attempt": replace(LATER, final=True)}, Load()),
    ("or the server is a new one", {}, {"attempt": replace(LATER, final=True), "boot_id": "two"}, Load()),
    ("a final failure outlives its server", {}, {"attempt": replace(LATER, final=True), "boot_id": None}, None),
]

DELETED = [
    ("a loaded one is unloaded first", {"model": READY}, Unload()),
    ("one that loads is unloaded too", {"model": ModelState(state="LOADING", reason="")}, Unload()),
    ("then its files go", {"model": UNLOADED}, Remove()),
    ("without a server its files go at once", {"boot_id": None}, Remove()),
    ("then it is forgotten", {"files": False}, Forget()),
    ("a failed unload waits", {"model": READY, "attempt": LATER}, None),
    ("and is tried again", {"model": READY, "attempt": LATER, "now": 101.0}, Unload()),
]


@pytest.mark.parametrize(("wanted", "seen", "action"), [case[1:] for case in LIVE], ids=[case[0] for case in LIVE])
def test_live(wanted, seen, action):
    service, situation = replace(SERVICE, **wanted), replace(SEEN, **seen)
    assert plan(service, situation) == action
    assert plan(service, situation) == action  # asked again, it answers the same


@pytest.mark.parametrize(("seen", "action"), [case[1:] for case in DELETED], ids=[case[0] for case in DELETED])
def test_deleted(seen, action):
    assert plan(replace(SERVICE, deleted=True, state="Deleting"), replace(SEEN, **seen)) == action
