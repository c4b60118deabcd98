"""The effective configurations of PyTorch files, alone and with part of a config.pbtxt, against golden files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import golden
from tests.support.repository import Repository
from tests.support.server import Serve, serve

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'naiad[torch]'")
from tests.support import torch_models  # noqa: E402 (it needs torch, too)

pytestmark = pytest.mark.timeout(240)  # nine models, some of which are exported first


class Counted(torch.nn.Module):
    """Numbers whose batch is fixed, and a scalar."""

    def forward(self, a: torch.Tensor, b: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b[0] + b[1], a.sum()


def exported_counted(path: Path) -> None:
    example = (torch.zeros(2, 3), (torch.zeros(2, 3), torch.zeros(2, 3)))
    path.parent.mkdir(parents=True)
    torch.export.save(torch.export.export(Counted(), example), path)


def traced_digits(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch_models.Digits().eval(), torch.zeros(1, 1, 28, 28)).save(str(path))


def class_digits(path: Path) -> None:
    path.parent.mkdir(parents=True)
    source = Path(torch_models.__file__).read_text().partition("class Frozen")[0].replace("import pytest\n", "")
    path.write_text("import torch\n" + source[source.index("class Digits") :])


# name → (what makes the file, its name, config.pbtxt)
CASES: dict[str, tuple[Any, str, str]] = {
    "torch-export": (torch_models.export_digits, "model.pt2", ""),
    "torch-export-keywords": (torch_models.export_tagger, "model.pt2", ""),
    "torch-export-nested": (exported_counted, "model.pt2", ""),
    "torch-export-other-name": (torch_models.export_digits, "digits.pt2", ""),
    "torch-export-batch-size": (torch_models.export_digits, "model.pt2", 'platform: "torch_aoti" max_batch_size: 200'),
    "torch-export-renamed": (
        torch_models.export_digits,
        "model.pt2",
        'max_batch_size: 4 input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] } '
        'output { name: "RESULT" }',
    ),
    "torch-traced": (traced_digits, "model.pt", ""),
    "torch-traced-model-device": (traced_digits, "model.pt", "instance_group { kind: KIND_MODEL }"),
    "torch-class": (
        class_digits,
        "model.py",
        'backend: "pytorch" max_batch_size: 4 input { name: "image" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] }',
    ),
}


@pytest.fixture(scope="module")
def served(module_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    repository = module_repository
    for name, (make, file, text) in CASES.items():
        make(repository.root / name / "1" / file)
        if text:
            (repository.root / name / "config.pbtxt").write_text(text)
    with serve(repository.root, tmp_path_factory.mktemp("log") / "log") as server:
        yield server.wait_ready(200)


@pytest.mark.parametrize("name", CASES)
def test_the_effective_configuration_is_the_golden_one(served, module_repository, name):
    golden.assert_golden(served, module_repository.root, "pytorch", name)


def test_every_golden_file_has_its_case():
    golden.assert_complete("pytorch", CASES)
