"""Which packages the tests ask for, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import debian


def test_what_is_there_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "here.h").touch()
    probes = {
        "sh": "dash",
        f"{tmp_path}/*.h": "libhere-dev",
        f"{tmp_path}/there.h": "libthere-dev",
        "no-such-tool": "tool",
    }
    assert debian.missing(probes) == ["libthere-dev", "tool"]


def test_libraries_come_with_a_compiler_and_compilers_with_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "SMALL", {})
    monkeypatch.setattr(debian, "COMPILERS", {"a": {"sh": "dash"}, "b": {"no-such-compiler": "compiler-b"}})
    monkeypatch.setattr(debian, "LIBRARIES", {"a": {"/no/such/a.h": "liba-dev"}, "b": {"/no/such/b.h": "libb-dev"}})
    assert list(debian.wanted(clients=False)) == ["liba-dev"]
    assert list(debian.wanted(clients=True)) == ["liba-dev", "compiler-b", "libb-dev"]


def test_without_root_the_line_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(debian, "SMALL", {"no-such-tool": "tool"})
    monkeypatch.setattr(debian, "COMPILERS", {})
    monkeypatch.setattr(debian, "may_install", lambda: False)
    monkeypatch.setattr("sys.argv", ["debian.py"])
    debian.main()
    assert "sudo apt-get install -y --no-install-recommends tool" in capsys.readouterr().err
