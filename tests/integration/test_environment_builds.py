"""`naiad env` on a folder while something comes between: Ctrl-C, a kill, a second build, a disk that takes nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from naiad.environments.interpreters import own
from tests.support.server import descendants
from tests.support.slow_index import SlowIndex

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., subprocess.Popen[str]]
# A shell that runs the tests in the background has them ignore Ctrl-C, and so all that they start.
NAIAD = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("naiad", run_name="__main__")
"""


@pytest.fixture
def index() -> Iterator[SlowIndex]:
    served = SlowIndex()
    yield served
    served.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "environments"


@pytest.fixture
def naiad(tmp_path: Path, wheelhouse: Path, index: SlowIndex, folder: Path, uv_cache: dict) -> Iterator[Start]:
    """Starts `naiad env`, in a process group of its own as a terminal does."""
    (tmp_path / "slow.txt").write_text("slow\n")
    (tmp_path / "good.txt").write_text("tiny<2\n")
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str, file: str = "", cwd: Path = tmp_path) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", NAIAD, "env", *words, "--environments", str(folder)]
        if file:
            line += ["-r", str(tmp_path / file)]
        if words[0] == "create":
            line += ["--index-url", index.url, "--find-links", str(wheelhouse)]
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**uv_cache, "PYTHONPATH": str(ROOT)},
            cwd=cwd,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "builds").iterdir() if path.is_dir()]


def test_ctrl_c_leaves_a_clean_folder(naiad, index, folder):
    process = naiad("create", "one", file="slow.txt")
    assert index.asked.wait(60)
    assert [name for name in left(folder) if name.endswith(".part")]
    tools = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    code, said = ended(process)
    assert code == 130, said
    assert "stopping the build; what was made of it is removed ..." in said
    assert left(folder) == []
    assert [pid for pid in tools if Path(f"/proc/{pid}").exists()] == []
    assert "FAILED" in ended(naiad("ls"))[1]
    code, said = ended(naiad("create", "one", file="good.txt"))  # its file was mended
    assert code == 0, said
    assert "ready     one" in said


def test_a_killed_build_takes_its_tools_along(naiad, index, folder):
    process = naiad("create", "one", file="slow.txt")
    assert index.asked.wait(60)
    tools = [os.pidfd_open(pid) for pid in descendants(process.pid)]
    process.kill()
    for tool in tools:
        assert select.select([tool], [], [], 30)[0], "uv goes on without anybody who waits for it"
        os.close(tool)
    assert len(left(folder)) == 1
    assert ended(naiad("rebuild", "one", file="good.txt"))[0] == 0
    assert [name for name in left(folder) if name.endswith(".part")] == []


def test_a_second_build_of_a_name_says_so_and_one_of_an_equal_lock_waits(naiad, index, folder):
    first = naiad("create", "one", file="slow.txt")
    assert index.asked.wait(60)
    code, said = ended(naiad("rebuild", "one"))
    assert (code, said) == (1, "error: environment 'one' is being built; see 'naiad env logs one --follow'\n")
    assert "BUILDING" in ended(naiad("ls"))[1]
    assert "last build failed" not in ended(naiad("show", "one"))[1]
    second = naiad("create", "two", file="slow.txt")
    assert second.stdout
    for line in second.stdout:
        if "the same is being made by another build" in line:
            break
    os.killpg(second.pid, signal.SIGINT)
    assert ended(second)[0] == 130
    assert first.poll() is None
    assert len(left(folder)) == 1


def test_a_folder_that_cannot_be_written_is_named(naiad, folder):
    folder.write_text("no folder")
    code, said = ended(naiad("create", "one", file="good.txt"))
    assert (code, said) == (1, f"error: '{folder}/named': Not a directory\n")


def test_a_file_that_cannot_be_read_is_named(naiad, tmp_path):
    for name, content, code, says in (
        ("no.txt", None, 5, " does not exist"),
        ("latin.txt", b"six\xff\n", 1, ": expected UTF-8 text, got the byte 0xff at 3"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert ended(naiad("create", "one", file=name)) == (code, f"error: '{tmp_path / name}'{says}\n")


def test_a_name_that_is_taken_says_how_to_change_it(naiad, wheelhouse):
    assert ended(naiad("create", "one", file="good.txt"))[0] == 0
    code, said = ended(naiad("create", "one", file="slow.txt"))
    assert code == 1
    assert "'naiad env rebuild one -r FILE' builds it of another file, 'naiad env rm one' removes it" in said


def test_an_interpreter_may_be_named_from_the_current_folder(naiad, tmp_path):
    (tmp_path / "here").symlink_to(own().path.parent)
    code, said = ended(naiad("create", "one", "--python", f"here/{own().path.name}", file="good.txt"))
    assert code == 0, said
    (tmp_path / "other").mkdir()
    assert ended(naiad("rebuild", "one", cwd=tmp_path / "other"))[0] == 0
