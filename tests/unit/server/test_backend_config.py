"""`--backend-config`: what has a meaning, what is taken without effect, what is refused."""

from __future__ import annotations

import pytest

from naiad.backends.registry import BACKENDS
from naiad.errors import ConfigError
from naiad.server.backend_config import parse


def size(name: str, *texts: str) -> int:
    return parse(texts).applied(BACKENDS[name]).max_batch_size


def test_a_default_batch_size_is_for_one_backend_or_for_all():
    default = BACKENDS["pytorch"].max_batch_size
    assert size("pytorch") == size("pytorch", "onnxruntime,default-max-batch-size=7") == default
    assert size("pytorch", "default-max-batch-size=7") == 7
    assert size("pytorch", "pytorch,default-max-batch-size=5", "default-max-batch-size=7") == 5
    assert size("identity", "pytorch,default-max-batch-size=5", "default-max-batch-size=0") == 0


def test_what_means_nothing_today_is_named():
    config = parse(["python,shm-default-byte-size=1048576", "onnxruntime,x=", "pytorch,default-max-batch-size=5"])
    assert config.ignored == ("backend-config=python,shm-default-byte-size=1048576", "backend-config=onnxruntime,x=")


@pytest.mark.parametrize("text", ["", "pytorch", "pytorch,", "pytorch,x", ",x=1", "pytorch,=1"])
def test_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="expected <backend>,<setting>=<value>"):
        parse([text])


@pytest.mark.parametrize("value", ["", "-1", "x", "1.5", "٣", "2147483648"])
def test_a_batch_size_is_a_number(value):
    with pytest.raises(ConfigError, match="default-max-batch-size: expected 0 to 2147483647"):
        parse([f"pytorch,default-max-batch-size={value}"])
