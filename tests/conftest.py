"""Fixtures that compose: a repository, and servers on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import tensorflow_models as tensorflow
from tests.support.environments import environments, python39, real_wheelhouse, uv_cache, wheelhouse  # noqa: F401
from tests.support.repository import Repository
from tests.support.server import Serve, serve


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


@pytest.fixture
def start(repository: Repository, tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    """Starts servers on the repository; all are stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def begin(*options: str, environment: dict[str, str] | None = None) -> Serve:
            log = tmp_path / "serve.log"
            return stack.enter_context(serve(repository.root, log, *options, environment=environment))

        yield begin


@pytest.fixture(scope="module")
def module_repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def torch():  # type: ignore[no-untyped-def]
    return pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")


@pytest.fixture(scope="session")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> tensorflow.Models:
    """Small SavedModels and Keras archives, made once; skips where TensorFlow is not installed."""
    return tensorflow.make(tmp_path_factory.mktemp("tensorflow"))
