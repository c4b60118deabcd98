"""One server with many small models, shared by the tests that only ask it things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import Repository
from tests.support.server import Serve, serve
from tests.support.triton import fetch, triton

PAIR = """backend: "identity"
max_batch_size: 8
input {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }}
input {{ name: "INPUT1" data_type: TYPE_FP32 dims: [ 4 ] {optional} }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] }}
output {{ name: "OUTPUT1" data_type: TYPE_FP32 dims: [ 4 ] }}
"""

SQUARE = """backend: "square"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
"""

DATATYPES = (
    "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 BF16 STRING"  # as configurations name them
).split()


def write_models(repository: Repository) -> None:
    """`m` batches rows of four; `two`, `optional` have two inputs; `square` is decoupled; one of each datatype."""
    repository.identity("m", dims="4")
    repository.identity("matrix", dims="2, 3", max_batch=0)
    repository.identity("wide", dims="-1, -1", max_batch=0)
    for name, optional in (("two", ""), ("optional", "optional: true")):
        repository.identity(name)
        (repository.root / name / "config.pbtxt").write_text(PAIR.format(optional=optional))
    repository.identity("square")
    (repository.root / "square" / "config.pbtxt").write_text(SQUARE)
    for datatype in DATATYPES:
        repository.identity(datatype.lower(), datatype=datatype, dims="-1", max_batch=0)


@pytest.fixture(scope="session")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Tests that change the server's state start one of their own."""
    folder = tmp_path_factory.mktemp("wire")
    repository = Repository(folder / "models")
    write_models(repository)
    with serve(repository.root, Path(folder / "serve.log"), "--http-max-input-size=100000") as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serve, Serve]]:
    """Naiad and the real Triton on the same models; without those that Triton's Python backend lacks."""
    fetch()
    folder = tmp_path_factory.mktemp("both")
    repository = Repository(folder / "models")
    write_models(repository)
    loaded = [path.name for path in repository.root.iterdir() if path.name not in ("bf16", "square")]
    for name in ("unloaded", "loadable"):
        repository.identity(name)
    options = ["--model-control-mode=explicit", *(f"--load-model={name}" for name in loaded)]
    with triton(repository.root, folder / "triton.log", *options) as theirs:
        with serve(repository.root, folder / "serve.log", *options) as ours:
            yield ours.wait_ready(), theirs
