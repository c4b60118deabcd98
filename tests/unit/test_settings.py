from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from naiad import settings
from naiad.cli.main import app
from naiad.errors import ConfigError

HOME = {"HOME": "/home/x"}


def test_nothing_set_gives_the_defaults():
    found = settings.read(HOME)
    assert (found.url, found.key, found.state, found.delay_scheduler) == (None, None, None, 0)
    assert found.config_home == Path("/home/x/.config")
    assert found.state_home == Path("/home/x/.local/state")


def test_every_known_setting_is_taken_and_the_key_does_not_print():
    given = {"NAIAD_URL": "http://h:1/", "NAIAD_KEY": "nk_secret", "NAIAD_STATE": "/tmp/s"}
    assert given.keys() == settings.KNOWN.keys()
    found = settings.read(HOME | given)
    assert (found.url, found.state) == ("http://h:1", Path("/tmp/s").resolve())
    assert found.key is not None
    assert found.key.reveal() == "nk_secret"
    assert "nk_secret" not in repr(found)


def test_empty_counts_as_absent():
    assert settings.read(HOME | {"NAIAD_URL": "", "NAIAD_KEY": "", "NAIAD_STATE": ""}) == settings.read(HOME)


@pytest.mark.parametrize("name", ["NAIAD_KEYS", "NAIAD_", "NAIAD_SERVICES", "NAIAD_lang"])
def test_an_unknown_setting_is_named(name):
    with pytest.raises(ConfigError, match=rf"unknown setting {name}; known: NAIAD_KEY, "):
        settings.read(HOME | {name: "x"})


@pytest.mark.parametrize(
    "name",
    ["NAIAD_PORT", "NAIAD_SERVICE_HOST", "NAIAD_PORT_8000_TCP_ADDR", "NAIAD_BLUE_SERVICE_PORT_HTTP", "NAIAD_UP_PORT"],
)
def test_what_kubernetes_injects_is_passed_over(name):
    assert settings.read(HOME | {name: "tcp://10.0.0.1:80"}) == settings.read(HOME)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NAIAD_URL", "localhost:8000", "expected http://HOST:PORT, got 'localhost:8000'"),
        ("NAIAD_URL", "http://", "expected http://HOST:PORT, got 'http://'"),
        ("TRITONSERVER_DELAY_SCHEDULER", "-1", "expected a number of requests, got '-1'"),
    ],
)
def test_a_wrong_value_is_named(name, value, expected):
    with pytest.raises(ConfigError, match=f"setting {name}: {expected}"):
        settings.read(HOME | {name: value})


def test_a_key_that_no_header_can_hold_is_refused_without_being_shown():
    with pytest.raises(ConfigError) as caught:
        settings.read(HOME | {"NAIAD_KEY": "nk_secret\n"})
    assert "NAIAD_KEY" in str(caught.value)
    assert "nk_secret" not in str(caught.value)


def test_the_command_line_refuses_an_unknown_setting_before_it_does_anything(monkeypatch):
    monkeypatch.setenv("NAIAD_URLL", "x")
    ended = CliRunner().invoke(app, ["ls"])
    assert ended.exit_code == 1
    assert "unknown setting NAIAD_URLL" in ended.output
