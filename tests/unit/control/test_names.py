from __future__ import annotations

import pytest

from naiad.control.names import nearest, problem_with, slug


@pytest.mark.parametrize("name", ["ab", "a1", "mnist-cnn", "x" * 63, "a-b-c"])
def test_names(name):
    assert problem_with(name) is None


@pytest.mark.parametrize("name", ["", "a", "A1", "1a", "a-", "-a", "a_b", "a.b", "x" * 64, "new", "ä1", "a\n", "a/b"])
def test_what_is_no_name(name):
    assert problem_with(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ResNet_50", "resnet-50"),
        ("1", "model-1"),
        ("", "model"),
        ("x", "x-model"),
        ("ä ö", "model"),
        ("a" * 80, "a" * 63),
    ],
)
def test_a_slug_is_a_name(text, name):
    assert slug(text) == name
    assert problem_with(slug(text)) is None


def test_nearest():
    assert nearest("mnist-cn", ["mnist-cnn", "other"]) == "mnist-cnn"
    assert nearest("zzz", ["mnist-cnn"]) is None
