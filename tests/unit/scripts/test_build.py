"""The build's steps: what they skip, what they ask of uv, what they say is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import build, up

UV = """#!/usr/bin/env bash
echo "$@" >> "{log}"
if [[ "$1 $2" == "cache dir" ]]; then echo "{cache}"; exit 0; fi
if [[ "{index}" == "down" && "$*" == *--torch-backend=* ]]; then exit 2; fi
"""


class Bench:
    """A checkout whose uv only writes down what it was asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.log = folder / "uv.log"
        for name, path in (
            ("VENV", ".venv"),
            ("TOOLS", "tools"),
            ("UV", "tools/uv/bin/uv"),
            ("STAMPS", ".venv/stamps.json"),
        ):
            monkeypatch.setattr(build, name, folder / path)
        monkeypatch.setattr(build, "ROOT", folder)
        monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
        (folder / ".venv").mkdir()

    def index(self, state: str) -> None:
        uv = self.folder / "tools/uv/bin/uv"
        uv.parent.mkdir(parents=True)
        uv.write_text(UV.format(log=self.log, cache=self.folder / "cache", index=state))
        uv.chmod(0o755)

    def asked(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line != "cache dir"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_step_is_done_once_for_the_same_sources(bench: Bench) -> None:
    done: list[str] = []
    build.step("core", "a", lambda: done.append("first"))
    build.step("core", "a", lambda: done.append("again"))
    build.step("core", "b", lambda: done.append("changed"))
    build.step("core", "b", lambda: done.append("lost"), is_there=False)
    assert done == ["first", "changed", "lost"]


def test_a_step_that_failed_is_done_again(bench: Bench) -> None:
    def fail() -> None:
        raise build.Missing("a thing", install="apt-get install thing")

    with pytest.raises(build.Missing, match="missing: a thing\ninstall: apt-get install thing"):
        build.step("core", "a", fail)
    done: list[str] = []
    build.step("core", "a", lambda: done.append("done"))
    assert done == ["done"]


def test_the_digest_follows_names_and_contents(bench: Bench) -> None:
    file = bench.folder / "a.rs"
    file.write_text("fn a() {}")
    before = build.digest([file])
    file.write_text("fn b() {}")
    assert build.digest([file]) != before
    renamed = file.rename(bench.folder / "b.rs")
    renamed.write_text("fn a() {}")
    assert build.digest([renamed]) != before


def test_torch_comes_from_its_own_index_where_that_answers(bench: Bench) -> None:
    bench.index("up")
    build.torch()
    probe, install = bench.asked()
    assert "--torch-backend=auto" in probe and probe.endswith("--dry-run")
    assert "--torch-backend=auto" in install and "--dry-run" not in install
    assert "torch-constraints.txt" in install


def test_torch_comes_from_pypi_where_its_index_does_not_answer(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.index("down")
    build.torch()
    probe, install = bench.asked()
    assert "--torch-backend=auto" in probe
    assert "--torch-backend" not in install and "torch-constraints.txt" in install
    assert "about 3 GB" in capfd.readouterr().err


def test_torch_is_refused_before_the_download_where_the_disk_is_too_small(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.index("down")
    monkeypatch.setattr(build, "TORCH_FROM_PYPI_BYTES", 1 << 60)
    with pytest.raises(SystemExit, match="torch needs"):
        build.torch()
    assert len(bench.asked()) == 1


def test_torch_is_left_alone_where_it_is(bench: Bench) -> None:
    (bench.folder / ".venv/lib/python3.11/site-packages/torch-2.9.0.dist-info").mkdir(parents=True)
    bench.index("up")
    build.torch()
    assert not bench.log.exists()


def test_a_python_without_venv_is_told_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(build.Missing, match=r"missing: the venv module of Python 3.*\ninstall: sudo \S+ install"):
        build.ensure_uv()


def test_a_missing_c_compiler_is_named_before_anything_is_compiled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.folder / "crates").mkdir()
    (bench.folder / "naiad").mkdir()
    (bench.folder / "pyproject.toml").write_text("")
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(build.Missing, match=r"missing: a C compiler.*\ninstall: sudo apt-get install gcc"):
        build.core()


def test_an_old_python_is_told_what_to_install(tmp_path: Path) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        old = tmp_path / name
        old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
        old.chmod(0o755)
    script = Path(up.__file__).with_name("python.sh")
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run([script, "-V"], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "missing: Python 3.11 or newer (found: Python 3.9.2)" in done.stderr
    assert "install: " in done.stderr


def test_a_missing_rust_is_bootstrapped_or_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.index("up")
    monkeypatch.setattr(build, "rust_is_new_enough", lambda env: False)
    monkeypatch.setattr(build, "rust_wanted", lambda: (1, 90))
    python = bench.folder / "tools/uv/bin/python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(build.Missing, match=r"Rust 1.90 or newer.*\ninstall: "):
        build.rust_environment()
    assert "puccinialin" in bench.asked()[0]


def test_the_printed_call_survives_a_folder_with_blanks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(up, "KEY_HEADER", tmp_path / "my keys" / "it's.header")
    line = up.curl_line("http://127.0.0.1:8000/v2/models/mnist-cnn/infer")
    words = subprocess.run(
        ["bash", "-c", f'curl() {{ printf "%s\\n" "$@"; }}; {line}'], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"@{tmp_path}/my keys/it's.header" in words
    assert os.fspath(up.EXAMPLE / "request.json") in words[-1]
