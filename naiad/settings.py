"""Reads the process-wide settings from the environment, once and completely: the only door they have."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from naiad.errors import ConfigError
from naiad.keys import Secret

PREFIX = "NAIAD_"

KNOWN: Mapping[str, str] = {
    "NAIAD_KEY": "API key that commands send",
    "NAIAD_STATE": "state folder of the platform to talk to",
    "NAIAD_URL": "address of the platform to talk to",
}

# Kubernetes gives every pod of a namespace variables for each of its Services: one called `naiad` must not stop us.
_INJECTED = re.compile(r"NAIAD(_.+)?_(SERVICE|PORT)(_.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings; an empty variable counts as absent."""

    url: str | None
    key: Secret | None
    state: Path | None
    config_home: Path
    """Where the user's configuration lies (XDG)."""
    state_home: Path
    """Where the user's state lies (XDG)."""
    delay_scheduler: int
    """Requests that a scheduler waits for before its first batch: Triton's variable for tests."""


def read(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings; raises `ConfigError` naming a variable that is unknown or wrong, never its value where secret."""
    variables = os.environ if environment is None else environment
    _refuse_unknown(variables)
    home = Path(variables.get("HOME") or Path.home())
    key, state = variables.get("NAIAD_KEY"), variables.get("NAIAD_STATE")
    return Settings(
        url=_url(variables.get("NAIAD_URL")),
        key=_key(key) if key else None,
        state=Path(state).expanduser().resolve() if state else None,
        config_home=Path(variables.get("XDG_CONFIG_HOME") or home / ".config"),
        state_home=Path(variables.get("XDG_STATE_HOME") or home / ".local" / "state"),
        delay_scheduler=_count("TRITONSERVER_DELAY_SCHEDULER", variables.get("TRITONSERVER_DELAY_SCHEDULER")),
    )


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    found = {name for name in variables if name.startswith(PREFIX) and not _INJECTED.fullmatch(name)}
    unknown = sorted(found - KNOWN.keys())
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(KNOWN))}")


def _url(text: str | None) -> str | None:
    if not text:
        return None
    if not re.match(r"https?://[^/\s]", text):
        raise ConfigError(f"setting NAIAD_URL: expected http://HOST:PORT, got '{text}'")
    return text.rstrip("/")


def _key(text: str) -> Secret:
    # It travels in a header; what cannot is refused here, where it can be named.
    if not re.fullmatch(r"[!-~]+", text):
        raise ConfigError("setting NAIAD_KEY: expected letters and digits without spaces or line ends")
    return Secret(text)


def _count(name: str, text: str | None) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ConfigError(f"setting {name}: expected a number of requests, got '{text}'")
    return int(text)
