"""Finds the platform and the key: `NAIAD_URL` and `NAIAD_KEY`, a state folder, or the one used last."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from naiad import settings
from naiad.control.state import StateFolder, default_state, write_private
from naiad.errors import NaiadError
from naiad.keys import Secret

if TYPE_CHECKING:
    from naiad.sdk.client import Client


class NoPlatform(NaiadError):
    """No platform is known or running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A platform: its URL, a key, and its state folder if it is on this machine."""

    url: str
    key: Secret | None
    state: StateFolder | None


def context_file() -> Path:
    """The file that remembers the platform used last."""
    return settings.read().config_home / "naiad" / "context.json"


def remember(state: StateFolder) -> None:
    """Makes this state folder's platform the one that commands talk to by default."""
    write_private(context_file(), json.dumps({"state": str(state.root)}) + "\n")


def chosen_state(option: str | None) -> StateFolder:
    """The state folder that an option, the environment or the context file names; else the default."""
    if option:
        return StateFolder(Path(option).expanduser().resolve())
    if named := settings.read().state:
        return StateFolder(named)
    try:
        remembered = json.loads(context_file().read_text("utf-8"))["state"]
    except (OSError, ValueError, KeyError, TypeError):
        return StateFolder(default_state())
    return StateFolder(Path(remembered))


def target(option: str | None) -> Target:
    """The platform to talk to."""
    found = settings.read()
    key = found.key
    if found.url and not option:
        return Target(url=found.url, key=key, state=None)
    state = chosen_state(option)
    address = state.addresses().get("api")
    if not address:
        raise NoPlatform(f"no platform has run on '{state.root}'; start one with: naiad up --detach")
    if not key and state.admin_key.is_file():
        key = Secret(state.admin_key.read_text("ascii").strip())
    host, _, port = str(address).rpartition(":")
    local = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return Target(url=f"http://{local}:{port}", key=key, state=state)


def connect(option: str | None) -> Client:
    """A client for the platform to talk to."""
    from naiad.sdk.client import Client

    found = target(option)
    return Client(found.url, found.key.reveal() if found.key else None)
