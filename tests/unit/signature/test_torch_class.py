"""Names of a module's `forward` in a `model.py`, read without running it."""

from __future__ import annotations

import pytest

from naiad.errors import UnservableFile
from naiad.signature.recognise import read

HEAD = "import torch\nraise SystemExit('it ran')\n"
CLASS = """
class Net(torch.nn.Module):
    def __init__(self, width=3): ...
    def forward(self, image, /, scale=None, *, mask): ...
"""


def test_the_arguments_of_forward_are_the_inputs(tmp_path):
    (tmp_path / "model.py").write_text(HEAD + CLASS + "class Options: ...\n")
    signature = read(tmp_path / "model.py")
    assert (signature.format, signature.backend) == ("PyTorch class", "pytorch")
    assert [tensor.name for tensor in signature.inputs] == ["image", "scale", "mask"]
    assert not signature.complete


def test_a_class_whose_forward_is_inherited_is_left_to_the_worker(tmp_path):
    (tmp_path / "model.py").write_text("from net import Base\nclass Net(Base): ...\n")
    assert read(tmp_path / "model.py").inputs == ()


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (CLASS + CLASS.replace("Net", "Part"), "has the modules Net, Part; expected one"),
        ("def f(:\n", "is no Python source, line 1: invalid syntax"),
        ("(" * 10_000, "is no Python source, line 1: too many nested parentheses"),
        ("x = " + "-" * 10_000 + "1\n", "is no Python source"),
        ("#" * (17 << 20) + "\n", "is longer than 16777216 bytes"),
        ("x = 1\0", "is no Python source"),
    ],
)
def test_what_is_no_class_is_refused(tmp_path, source, what):
    (tmp_path / "model.py").write_text(source)
    with pytest.raises(UnservableFile) as caught:
        read(tmp_path / "model.py")
    assert caught.value.what.startswith(f"'model.py' {what}")


def test_arguments_with_a_default_may_be_left_out(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(
        "class Net(Module):\n    def forward(self, x, /, y, scale=2.0, *more, z, offset=None, **rest): ...\n"
    )
    told = {tensor.name: tensor.optional for tensor in read(path).inputs}
    assert told == {"x": False, "y": False, "scale": True, "z": False, "offset": True}
