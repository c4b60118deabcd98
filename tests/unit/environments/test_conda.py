"""Environments from an environment.yaml, solved and installed from a channel in a folder."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from naiad.environments.errors import BuildFailed
from naiad.environments.interpreters import own
from naiad.environments.reach import Reach, SourceNotAllowed
from naiad.environments.specification import Specification

rattler = pytest.importorskip("rattler", reason="py-rattler is not installed: pip install 'naiad[environments]'")

VERSION = own().version
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
PLACEHOLDER = "/opt/placeholder_placehold_placehold_placehold"


def conda_package(
    folder: Path, name: str, version: str, files: dict[str, bytes | str], *, depends: tuple[str, ...] = ()
):
    """Packs files; a str is a link's target, and bytes that hold the placeholder are marked to be rewritten."""
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": list(depends)}
    index |= {"subdir": folder.name, "platform": None, "arch": None}
    paths = []
    for file, content in files.items():
        entry = {"_path": file, "path_type": "softlink" if isinstance(content, str) else "hardlink"}
        data = b"" if isinstance(content, str) else content
        entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)}
        if PLACEHOLDER.encode() in data:
            entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
        paths.append(entry)
    inner = {"info/index.json": json.dumps(index), "info/paths.json": json.dumps({"paths": paths, "paths_version": 1})}
    inner["info/files"] = "\n".join(files) + "\n"
    with tarfile.open(folder / f"{name}-{version}-0.tar.bz2", "w:bz2", compresslevel=1) as archive:
        for file, text in inner.items():
            info = tarfile.TarInfo(file)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for file, content in files.items():
            info = tarfile.TarInfo(file)
            info.mode = 0o755
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def channel(tmp_path_factory) -> str:
    """Packages made by hand: a `python` that is the one of this machine, numpy as installed here, and small ones."""
    import asyncio

    root = tmp_path_factory.mktemp("channel")
    folder = root / str(rattler.Subdir.current())
    folder.mkdir()
    (root / "noarch").mkdir()
    config = f"home = {own().path.parent}\ninclude-system-site-packages = false\nversion = {VERSION}\n"
    python = {"bin/python": str(own().path), "pyvenv.cfg": config.encode()}
    conda_package(folder, "python", VERSION, python)
    conda_package(folder, "numpy", "2.0", {f"{SITE}/numpy.py": b"version = 2\n"}, depends=("python",))
    where = f"#!/bin/sh\necho {PLACEHOLDER}\n".encode()
    conda_package(folder, "where", "1.0", {"bin/where": where}, depends=("python",))
    conda_package(folder, "picky", "1.0", {"share/picky": b"x"}, depends=("where >=2",))
    asyncio.run(rattler.index.index_fs(root))
    return root.as_uri()


def test_a_conda_environment(environments, channel, wheelhouse):
    text = "name: x\ndependencies:\n  - where\n  - pip:\n    - tiny<2\n"
    wish = Specification(manager="CONDA", text=text, channels=(channel,), find_links=(str(wheelhouse),))
    environments.create("one", wish)
    built = environments.build("one", offline=True)
    assert built.current.python == VERSION
    folder, _lease = environments.lease("one")
    code = "import numpy, tiny, sys; print(tiny.version, sys.prefix)"
    done = subprocess.run([folder / "bin" / "python", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", str(folder)]
    where = subprocess.run([folder / "bin" / "where"], capture_output=True, text=True, check=True)
    assert where.stdout.strip() == str(folder)
    lock = environments.lock_text("one")
    assert f"python-{VERSION}-0.tar.bz2#sha256:" in lock
    assert "tiny==1.0" in lock
    again = environments.build("one", offline=True)
    assert again.current.key == built.current.key
    assert "the build that is there is taken" in environments.log("one").read_text()


def test_the_solvers_words_are_kept(environments, channel):
    wish = Specification(manager="CONDA", text="dependencies:\n  - picky\n", channels=(channel,))
    environments.create("one", wish)
    with pytest.raises(BuildFailed) as caught:
        environments.build("one", offline=True)
    assert "where >=2" in caught.value.words
    assert environments.get("one").problem == caught.value.words


def test_offline_needs_a_channel_in_a_folder(environments):
    environments.create("one", Specification(manager="CONDA", text="dependencies:\n  - zlib\n"))
    with pytest.raises(BuildFailed, match="offline, so channel 'conda-forge' cannot be read"):
        environments.build("one", offline=True)


@pytest.fixture
def elsewhere(channel: str, tmp_path: Path) -> str:
    """The same channel, whose index says that its packages lie on another host."""
    root = tmp_path / "channel"
    shutil.copytree(channel.removeprefix("file://"), root)
    for place in root.glob("*/repodata*"):
        if place.name != "repodata.json":
            place.unlink()
            continue
        document = json.loads(place.read_text())
        document["info"]["base_url"] = "http://127.0.0.1:9/there/"
        place.write_text(json.dumps(document))
    return root.as_uri()


def test_packages_that_a_channel_has_elsewhere_are_not_fetched(environments, elsewhere, channel):
    text = "dependencies:\n  - where\n"
    environments.create("one", Specification(manager="CONDA", text=text, channels=(elsewhere,)))
    with pytest.raises(BuildFailed, match=r"offline, so package 'http://127.0.0.1:9/there/"):
        environments.build("one", offline=True)
    with pytest.raises(SourceNotAllowed, match=r"host '127.0.0.1' is no public one"):
        environments.build("one", reach=Reach())
    environments.put("one", Specification(manager="CONDA", text=text, channels=(channel,)))
    assert environments.build("one", reach=Reach()).state == "READY"


def test_a_channel_names_no_file_beside_it():
    for url in ("file:///etc/x-1-0.conda", "file:///srv/channel/../x-1-0.conda", "file:///srv/channelx/y.conda"):
        with pytest.raises(SourceNotAllowed, match="is no part of it"):
            Reach().check_packages([url], ["file:///srv/channel"])
    Reach().check_packages(["file:///srv/channel/noarch/x-1-0.conda"], ["file:///srv/channel"])
