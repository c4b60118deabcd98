"""Builds with the real uv from a folder of wheels: what is reused, what is kept after a failure, what is removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from naiad.environments.build import build
from naiad.environments.commands import Tools, tool_environment
from naiad.environments.errors import (
    BuildFailed,
    EnvironmentBusy,
    EnvironmentExists,
    NoSuchEnvironment,
    WrongSpecification,
)
from naiad.environments.interpreters import own
from naiad.environments.leases import exclusive
from naiad.environments.lock import Lock, with_numpy
from naiad.environments.specification import Specification
from naiad.environments.store import Store
from tests.support import wheels
from tests.support.environments import wish


def version_in(store: Store, name: str) -> str:
    """The version of `tiny` that an environment's Python imports."""
    folder, _lease = store.lease(name)
    command = [f"{folder}/bin/python", "-I", "-c", "import numpy, tiny; print(tiny.version)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_build_is_whole(environments, wheelhouse):
    store = environments
    assert store.create("one", wish(wheelhouse, "tiny<2\n")).state == "PENDING"
    built = store.build("one", offline=True)
    assert built.state == "READY"
    assert version_in(store, "one") == "1.0"
    lock = Lock(store.lock_text("one"))
    assert lock.digest == built.current.digest
    assert {package.name for package in lock.packages()} == {"tiny", "numpy"}
    assert lock.text.count("--hash=sha256:") == 2
    assert str(wheelhouse) not in lock.text
    folder, _lease = store.lease("one")
    assert list(folder.glob("lib/*/site-packages/__pycache__/tiny.*.pyc"))
    log = store.log("one").read_text()
    assert log.index("==> resolving") < log.index("==> installing") < log.index("READY")
    assert not list(folder.parent.glob("*.part"))


def test_an_equal_lock_is_built_once(environments, wheelhouse):
    store = environments
    for name, text in (("one", "tiny==1.0\n"), ("two", "# the same\ntiny<2\nnumpy\n")):
        store.create(name, wish(wheelhouse, text))
    first = store.build("one", offline=True)
    folder, lease = store.lease("one")
    stamp = folder.stat().st_ino
    second = store.build("two", offline=True)
    assert second.current.key == first.current.key
    assert "the build that is there is taken" in store.log("two").read_text()
    assert store.build("one", offline=True).builds[0].key == first.current.key
    lease.release()
    store.remove("one")
    assert folder.stat().st_ino == stamp
    assert version_in(store, "two") == "1.0"
    store.remove("two")
    assert not folder.exists()


def test_a_failed_build_keeps_the_resolvers_words_and_the_last_good_build(environments, wheelhouse):
    store = environments
    store.create("one", wish(wheelhouse, "tiny\n"))
    good = store.build("one", offline=True)
    store.put("one", wish(wheelhouse, "needy\ntiny>=2\n"))
    with pytest.raises(BuildFailed) as caught:
        store.build("one", offline=True)
    assert "needy" in caught.value.words
    assert "unsatisfiable" in caught.value.words
    after = store.get("one")
    assert (after.state, after.builds) == ("READY", good.builds)
    assert after.problem == caught.value.words
    assert store.log("one").read_text().endswith("FAILED\n")
    assert version_in(store, "one") == "2.0"
    store.put("one", wish(wheelhouse, "tiny<2\n"))
    again = store.build("one", offline=True)
    assert again.problem == ""
    assert version_in(store, "one") == "1.0"
    _, lease = store.lease("one", good.current.digest[:12])
    lease.release()


def test_a_first_build_that_fails_leaves_nothing(environments, wheelhouse):
    store = environments
    store.create("one", wish(wheelhouse, "nosuch-zz\n"))
    with pytest.raises(BuildFailed, match="nosuch-zz"):
        store.build("one", offline=True)
    assert store.get("one").state == "FAILED"
    with pytest.raises(NoSuchEnvironment, match="expected READY, got FAILED"):
        store.lease("one")
    store.remove("one")
    assert store.all() == []


def test_a_wheel_that_changed_is_not_installed(environments, wheelhouse, tmp_path):
    """The lock's hashes are checked when it is installed."""
    store = environments
    specification = wish(wheelhouse, "tiny<2\n")
    store.create("one", specification)
    store.build("one", offline=True)
    # The hash of the one wheel with the version of the other.
    text = store.lock_text("one").replace("tiny==1.0", "tiny==2.0")
    tools = Tools(log=tmp_path / "log", offline=True, environ=os.environ)
    with pytest.raises(BuildFailed, match="installing failed"):
        build(specification, Lock(text), own(), destination=tmp_path / "made", tools=tools)
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "made.part").exists()


def test_code_is_not_built_from_source_unless_asked(environments, tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    package = tmp_path / "evil-1.0"
    package.mkdir()
    (package / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    shutil.make_archive(str(folder / "evil-1.0"), "gztar", tmp_path, "evil-1.0")
    environments.create("one", wish(folder, "evil\n"))
    with pytest.raises(BuildFailed, match="evil"):
        environments.build("one", offline=True)
    assert not (tmp_path / "ran").exists()


def test_offline_opens_no_connection(environments, wheelhouse, tmp_path):
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")
    specification = wish(wheelhouse, index_url="https://packages.example/simple")
    environments.create("one", specification)
    script = tmp_path / "build.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom naiad.environments.store import Store\n"
        "Store(Path(sys.argv[1])).build('one', offline=True)\n"
    )
    trace = tmp_path / "trace"
    root = tmp_path / "environments"
    command = [
        strace,
        "-f",
        "-e",
        "trace=connect,sendto,sendmsg",
        "-o",
        str(trace),
        sys.executable,
        str(script),
        str(root),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environments._environ)
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    calls = trace.read_text()
    assert "AF_INET" not in calls
    assert "exited with 0" in calls


def test_a_name_is_one_thing(environments, wheelhouse):
    store = environments
    store.create("one", wish(wheelhouse))
    assert store.create("one", wish(wheelhouse)).name == "one"
    with pytest.raises(EnvironmentExists, match="made of something else"):
        store.create("one", wish(wheelhouse, "needy\n"))
    for name in ("../one", "One", "a"):
        with pytest.raises(WrongSpecification, match="name: expected"):
            store.create(name, wish(wheelhouse))
    with pytest.raises(NoSuchEnvironment, match="there is no environment 'on'; there is 'one'"):
        store.get("on")


def test_a_build_that_runs_is_left_alone(environments, wheelhouse):
    store = environments
    store.create("one", wish(wheelhouse))
    folder = store.log("one").parent
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(folder / "lock", wait_seconds=0):
            inside.set()
            leave.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(30)
    try:
        (folder / "state.json").write_text(json.dumps({"building": True, "problem": "interrupted", "builds": []}))
        assert store.get("one").state == "BUILDING"
        for act in (store.build, store.remove):
            with pytest.raises(EnvironmentBusy, match="is being built"):
                act("one")
    finally:
        leave.set()
        holder.join()
    # Whoever built is gone and has written no end.
    assert store.get("one").state == "FAILED"
    assert store.get("one").problem == "interrupted"


def test_old_builds_go_after_a_while(environments, tmp_path, wheelhouse):
    folder = tmp_path / "own"
    folder.mkdir()
    for wheel in wheelhouse.glob("numpy*"):
        (folder / wheel.name).symlink_to(wheel)
    store = environments
    store.create("one", wish(folder))
    keys: list[str] = []
    pinned: list[str] = []
    for number in range(1, 6):
        wheels.tiny(folder, "tiny", f"{number}.0")
        built = store.build("one", offline=True, pinned=pinned)
        keys.append(built.current.key)
        pinned = pinned or [built.current.digest[:32]]
    kept = [*keys[:1:-1], keys[0]]  # a service version holds to the first
    assert [build.key for build in store.get("one").builds] == kept
    there = {path.name for path in (tmp_path / "environments" / "builds").iterdir() if path.is_dir()}
    assert there == set(kept)
    folder, lease = store.lease("one", pinned[0])
    assert folder.name == keys[0]
    lease.release()


def test_what_no_name_has_goes_with_the_next_build(environments, tmp_path, wheelhouse):
    store, builds = environments, tmp_path / "environments" / "builds"
    for name, text in (("one", "tiny<2\n"), ("two", "tiny\n"), ("held", "needy\n")):
        store.create(name, wish(wheelhouse, text))
        store.build(name, offline=True)
    two = store.get("two").current.key
    held, lease = store.lease("held")
    for name in ("two", "held"):
        shutil.rmtree(tmp_path / "environments" / "named" / name)  # as a process does that is killed half way
    (builds / "0123-py3.part" / "lib").mkdir(parents=True)
    (builds / "0123-py3.beef.removed" / "lib").mkdir(parents=True)
    store.build("one", offline=True)
    assert {path.name for path in builds.iterdir() if path.is_dir()} == {store.get("one").current.key, held.name}
    assert not (builds / f"{two}.lock").exists()
    lease.release()
    (tmp_path / "environments" / "named" / "one" / "state.json").write_text("half of it")
    store.tidy()
    assert held.is_dir(), "where a name cannot be read, nothing is taken for nobody's"


def test_e6_builds_see_listed_variables_only():
    seen = tool_environment({"NAIAD_KEY": "nk_x", "AWS_SECRET_ACCESS_KEY": "y", "HOME": "/h", "UV_CACHE_DIR": "/c"})
    assert "NAIAD_KEY" not in seen
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert (seen["HOME"], seen["UV_CACHE_DIR"]) == ("/h", "/c")


def test_numpy_is_added_where_nobody_asks_for_it():
    assert with_numpy("six\n") == "six\nnumpy\n"
    assert with_numpy("") == "numpy\n"
    assert with_numpy("NumPy<2 # old\n") == "NumPy<2 # old\n"
    assert with_numpy("# numpy\n") == "# numpy\nnumpy\n"


def test_a_missing_python_is_said(environments):
    environments.create("one", Specification(text="six", python="3.99"))
    with pytest.raises(WrongSpecification, match=r"this machine has no Python 3\.99; it has "):
        environments.build("one", offline=True)
    assert "no Python 3.99" in environments.get("one").problem


def test_the_real_index(environments):
    environments.create("one", Specification(text="six==1.17.0\n"))
    try:
        built = environments.build("one")
    except BuildFailed as error:
        if "six" in error.words and "No solution" in error.words:
            raise
        pytest.skip(f"the package index cannot be reached: {error.words[-200:]}")
    assert built.state == "READY"
    assert Path(environments.lease("one")[0]).is_dir()
