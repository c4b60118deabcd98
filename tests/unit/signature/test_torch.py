"""Files as torch writes them, against what the signature says of them without torch."""

from __future__ import annotations

import warnings

import pytest

from naiad.errors import UnservableFile
from naiad.signature.recognise import read

torch = pytest.importorskip("torch", reason="torch is not installed (extra naiad[torch])")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(tokens.float()), mask


class Keyed(torch.nn.Module):
    def forward(self, x: torch.Tensor, scale: float = 2.0) -> dict[str, torch.Tensor]:
        return {"scaled": x * scale}


def traced(path, example, module=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace((module or Pair()).eval(), example), path)
    return path


def scripted(path, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module.eval()), path)
    return path


def test_a_traced_model(tmp_path):
    example = (torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.bool))
    signature = read(traced(tmp_path / "model.pt", example))
    assert [(t.name, t.type, t.datatype, t.shape) for t in signature.inputs] == [
        ("tokens", "Tensor", "INT64", (3, 4)),
        ("mask", "Tensor", "BOOL", (3,)),
    ]
    assert (signature.format, signature.output_type) == ("TorchScript (traced)", "Tuple[Tensor, Tensor]")
    assert signature.complete and signature.warnings == ()


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        (torch.float16, "FP16"), (torch.bfloat16, "BF16"), (torch.float64, "FP64"), (torch.uint8, "UINT8"),
        (torch.int8, "INT8"), (torch.int16, "INT16"), (torch.int32, "INT32"),
    ],
)  # fmt: skip
def test_every_datatype_is_read(tmp_path, dtype, datatype):
    path = traced(tmp_path / "model.pt", (torch.zeros(1, 2, dtype=dtype),), torch.nn.Identity())
    assert [(t.datatype, t.shape) for t in read(path).inputs] == [(datatype, (1, 2))]


def test_a_scripted_model(tmp_path):
    signature = read(scripted(tmp_path / "model.pt", Keyed()))
    assert [(t.name, t.type, t.shape) for t in signature.inputs] == [("x", "Tensor", None), ("scale", "float", None)]
    assert signature.output_type == "Dict[str, Tensor]"


def test_a_frozen_model_keeps_its_names_but_not_its_shapes(tmp_path):
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(torch.jit.script(Pair().eval())).save(path)
    signature = read(path)
    assert [t.name for t in signature.inputs] == ["tokens", "mask"]
    assert not signature.complete


@pytest.mark.parametrize("old", [False, True])
def test_weights_and_pickled_modules_are_refused(tmp_path, old):
    torch.save(Pair().state_dict(), tmp_path / "weights.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(UnservableFile) as caught:
        read(tmp_path / "weights.pt")
    assert caught.value.code == ("UNSAFE_PICKLE" if old else "WEIGHTS_ONLY")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(UnservableFile) as caught:
        read(tmp_path / "module.pt")
    assert caught.value.code == "UNSAFE_PICKLE"
