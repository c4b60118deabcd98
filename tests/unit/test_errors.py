"""A failure's code is said once: as a field, and in brackets where the failure becomes one line."""

from __future__ import annotations

import pytest

from naiad.errors import ConfigError, LoadError, split_code


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("dims: expected 3, got 2 (IO_MISMATCH)", ("dims: expected 3, got 2", "IO_MISMATCH", "")),
        ("'m' lies there (LAYOUT_NO_VERSION); move it", ("'m' lies there", "LAYOUT_NO_VERSION", "move it")),
        ("none (ignored: a; b) (LAYOUT_NO_VERSION); move", ("none (ignored: a; b)", "LAYOUT_NO_VERSION", "move")),
        ("runs on (GPU)", ("runs on (GPU)", "", "")),
        ("(IO_MISMATCH) comes first", ("(IO_MISMATCH) comes first", "", "")),
        ("", ("", "", "")),
    ],
)  # fmt: skip
def test_a_message_may_end_with_its_code(text, parts):
    assert split_code(text) == parts


def test_a_configuration_is_invalid_where_nothing_says_more():
    assert ConfigError("dims: expected 3, got 2").code == "CONFIG_INVALID"
    error = ConfigError("the folder is empty (PATH_NOT_FOUND); name a file")
    assert (str(error), error.what) == ("the folder is empty (PATH_NOT_FOUND); name a file", "the folder is empty")
    assert (error.code, error.fix) == ("PATH_NOT_FOUND", "name a file")


def failure(cause: str, stage: str = "signature", fix: str = "") -> LoadError:
    return LoadError(model="m", version=1, stage=stage, cause=cause, fix=fix)


def test_a_failure_is_a_record_and_a_line_with_the_same_code():
    error = failure("it holds weights", fix="export it").coded("WEIGHTS_ONLY")
    assert error.reason == "signature: it holds weights (WEIGHTS_ONLY) (fix: export it)"
    record = error.record()
    assert (record["code"], record["cause"], record["fix"]) == ("WEIGHTS_ONLY", "it holds weights", "export it")
    assert failure("the dims differ (IO_MISMATCH)").record()["code"] == "IO_MISMATCH"


def test_a_line_holds_no_code_that_says_nothing():
    assert failure("it broke", stage="load").reason == "load: it broke"
    assert failure("it broke").coded("").code == "LOAD_FAILED"
    twice = failure("model appears in two or more repositories", stage="repository").coded("CONFIG_INVALID")
    assert twice.reason == "model appears in two or more repositories"
