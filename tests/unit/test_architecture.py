"""The way of one request is as docs/architecture.md says: the files exist, each stage calls the next in that order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def stages() -> list[tuple[str, str, tuple[str, ...]]]:
    """File, function and calls of each row of the page's table."""
    section = PAGE.read_text("utf-8").split("## The way of one request")[1]
    rows = []
    for line in section.splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[1]:
            rows.append((cells[1][0], cells[2][0], tuple(cells[3])))
    return rows


def bodies(path: Path, name: str) -> list[str]:
    """The text of each function of that name, without comments."""
    found = []
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        head = re.match(rf"(\s*)(?:pub(?:\([a-z]+\))? )?(?:async )?(?:fn|def) {name}\b", line)
        if head is None:
            continue
        indent = len(head[1])
        body = []
        for inner in lines[number + 1 :]:
            is_end = path.suffix == ".rs" and re.match(rf"\s{{{indent}}}}}", inner)
            is_next = path.suffix == ".py" and inner.strip() and len(inner) - len(inner.lstrip()) <= indent
            if is_end or (is_next and not inner.lstrip().startswith(")")):
                break
            body.append(re.sub(r"//.*|#.*", "", inner))
        found.append("\n".join(body))
    return found


def follows(text: str, calls: tuple[str, ...]) -> bool:
    """Whether the calls stand in the text one after the other."""
    at = 0
    for call in calls:
        match = re.compile(rf"(?<!\w){re.escape(call)}\b").search(text, at)
        if match is None:
            return False
        at = match.end()
    return True


def test_the_page_has_the_whole_way() -> None:
    files = [file for file, _, _ in stages()]
    for stage in (
        "http/mod.rs",
        "http/infer.rs",
        "engine.rs",
        "scheduler/",
        "instance/worker.rs",
        "serving.py",
        "pytorch.py",
    ):
        assert any(stage in file for file in files), f"no row of the page names {stage}"


@pytest.mark.parametrize(("file", "function", "calls"), stages())
def test_each_stage_calls_the_next(file: str, function: str, calls: tuple[str, ...]) -> None:
    path = ROOT / file
    assert path.is_file(), f"{PAGE.name} names '{file}', which does not exist"
    found = bodies(path, function)
    assert found, f"'{file}' has no function '{function}'"
    assert any(follows(body, calls) for body in found), (
        f"'{file}': '{function}' does not call {', '.join(calls)} in this order"
    )


def test_the_order_matters() -> None:
    assert follows("a(b)\nc.d()", ("a", "c.d"))
    assert not follows("c.d()\na(b)", ("a", "c.d"))
    assert not follows("ab()", ("a",))


HTTP_ALONE = {
    "admin", "cors", "deadline", "eager", "generate", "host", "http2", "limits", "metrics", "names", "openai",
    "progress",
}  # fmt: skip
GRPC_ALONE = {"gen", "inline", "message", "messages", "reflection", "stream"}


def test_both_frontends_have_the_same_rooms() -> None:
    core = ROOT / "crates" / "core" / "src"
    http, grpc = (
        {path.stem for path in (core / frontend).iterdir() if not path.stem.endswith("tests")}
        for frontend in ("http", "grpc")
    )
    assert grpc - GRPC_ALONE == http - HTTP_ALONE
    operations = {path.stem for path in (core / "operations").glob("*.rs")} - {"mod", "names"}
    assert operations <= grpc & http
