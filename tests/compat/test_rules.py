"""Each rule of docs/reference/protocol.md, wire rules W… and rows E-… of the error table, is quoted by a test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "protocol.md"

# Rules without a test, with what they wait for; whoever tests one takes it out.
LATER = {
    "E-sequence": "the sequence batcher",
}

# `W37` in prose, `w37` in the name of a test.
WIRE = re.compile(r"(?<![A-Za-z0-9])[Ww](\d{1,2})(?![A-Za-z0-9])")
ROW = re.compile(r"\bE-[a-z]+(?:-[a-z]+)*\b")


def rules() -> list[str]:
    """Every rule that the page states, in its order."""
    return re.findall(r"^- \*\*(W\d+)\*\*|^\| (E-[a-z-]+) \|", PAGE.read_text(), re.MULTILINE)


def stated() -> list[str]:
    return [wire or row for wire, row in rules()]


def test_sources() -> Iterator[tuple[Path, str]]:
    """Each test file, and of a Rust file with its tests inside only what follows `#[cfg(test)]`."""
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__).resolve():
            yield path, path.read_text()
    for path in (ROOT / "crates").rglob("*.rs"):
        below = path.relative_to(ROOT / "crates").parts
        if "target" in below or "gen" in below:
            continue
        if "tests" in below or path.stem.endswith("tests"):
            yield path, path.read_text()
        else:
            yield path, path.read_text().partition("#[cfg(test)]\nmod tests {")[2]


test_sources.__test__ = False  # type: ignore[attr-defined]


def quoted() -> dict[str, list[str]]:
    """Each id that a test quotes, with the files; `W13-W15` quotes its two ends only."""
    found: dict[str, list[str]] = {}
    for path, text in test_sources():
        for name in {*(f"W{number}" for number in WIRE.findall(text)), *ROW.findall(text)}:
            found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def test_the_page_states_all_eighty_wire_rules_once() -> None:
    wire = [rule for rule in stated() if rule.startswith("W")]
    assert wire == [f"W{number}" for number in range(1, 81)]
    rows = [rule for rule in stated() if rule.startswith("E-")]
    assert len(rows) == len(set(rows)) >= 18


def test_every_rule_is_quoted_by_a_test() -> None:
    found = quoted()
    missing = [rule for rule in stated() if rule not in found]
    assert missing == [rule for rule in stated() if rule in LATER], "a rule without a test, or one that has a test now"


def test_tests_quote_only_rules_that_exist() -> None:
    strange = {name: files for name, files in quoted().items() if name not in stated()}
    assert not strange
