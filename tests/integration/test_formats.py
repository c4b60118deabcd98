"""Each format that is served: recognised, loaded, batched, answering as its framework does; and its configuration.

The rows are in `tests/support/formats.py`, the partial configurations in `tests/support/golden.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.support import compatibility, golden
from tests.support.formats import BY_NAME, FORMATS
from tests.support.server import Serve, serve


@dataclass
class Shelf:
    """A server on a repository with a model of each format, none of them loaded."""

    server: Serve
    root: Path
    answers: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)

    def model(self, name: str) -> Path:
        """The directory of a format's model, made where it is not there yet; skips where its framework is missing."""
        if reason := BY_NAME[name].absent():
            pytest.skip(reason)
        if name not in self.answers:
            self.answers[name] = BY_NAME[name].write(self.root / name)
        return self.root / name

    def load(self, name: str) -> None:
        if name not in self.loaded:
            answer = self.server.post(f"/v2/repository/models/{name}/load")
            assert answer.status == 200, answer.body
            self.loaded.add(name)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    root = tmp_path_factory.mktemp("formats") / "models"
    root.mkdir()
    with serve(root, root.parent / "log", compatibility.EXPLICIT) as server:
        yield Shelf(server, root)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BY_NAME)
def test_a_format_works_as_the_documents_say(shelf, name):
    model = shelf.model(name)
    row = compatibility.examine(shelf.server, BY_NAME[name], model, shelf.answers[name])
    shelf.loaded.add(name)
    assert row.equal, "the answers are not those of the framework called directly"
    assert row.batching
    told = row.cells()[: -compatibility.FIGURES]
    assert compatibility.printed().get(row.label) == told, "python -m tests.support.compatibility writes the page anew"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", golden.CASES)
def test_the_effective_configuration_is_the_golden_one(shelf, case):
    of, _text = golden.CASES[case]
    shelf.model(of)
    golden.add_case(shelf.root, case)
    shelf.load(case)
    golden.assert_golden(shelf.server, shelf.root, "formats", case)


def test_every_golden_file_has_its_case():
    golden.assert_complete("formats", golden.CASES)


def test_the_documents_hold_no_other_format():
    assert set(compatibility.printed()) <= {each.label for each in FORMATS}
