"""Environments for tests: built by uv from a folder of wheels, with no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from naiad.environments.specification import Specification
from naiad.environments.store import Store
from tests.support import old_python, wheels


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small packages, for builds in which no worker runs: its numpy is one file."""
    folder = _small(tmp_path_factory.mktemp("wheels"))
    wheels.tiny(folder, "numpy", "2.0")
    return folder


@pytest.fixture(scope="session")
def real_wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with numpy as it is installed here."""
    folder = _small(tmp_path_factory.mktemp("real-wheels"))
    wheels.installed(folder, "numpy")
    return folder


def _small(folder: Path) -> Path:
    pytest.importorskip("uv", reason="uv is not installed: pip install 'naiad[environments]'")
    wheels.tiny(folder, "tiny", "1.0")
    wheels.tiny(folder, "tiny", "2.0")
    wheels.tiny(folder, "needy", "1.0", needs="tiny<2")
    return folder


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a build whose cache holds nothing but these wheels."""
    patience = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1"}
    return {**os.environ, **patience, "UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv-cache"))}


@pytest.fixture
def environments(tmp_path: Path, uv_cache: dict[str, str]) -> Store:
    """A store of its own."""
    return Store(tmp_path / "environments", environ=uv_cache)


def wish(wheelhouse: Path, text: str = "tiny\n", **fields: object) -> Specification:
    """A specification that needs no network."""
    return Specification(text=text, find_links=(str(wheelhouse),), **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def python39() -> Path:
    """The folder of a Python 3.9 with numpy < 2."""
    try:
        return old_python.folder()
    except old_python.NotHere as error:
        pytest.skip(f"{error}")
