"""A scrape is read by Prometheus' own parser in Go, and by the one in Python to the same effect."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scripts import debian

SOURCE = Path(__file__).resolve().parents[1] / "support" / "expfmt"
NO_REGISTRY = re.compile(r"no such host|dial tcp|i/o timeout")
TAGS = 'metric_tags { key: "team" value: "a \\"quoted\\" \\\\ one" }'

# The first run fetches and compiles the parser.
pytestmark = pytest.mark.timeout(300)

Parse = Callable[[str], dict[str, dict[str, object]]]


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Parse:
    if shutil.which("go") is None:
        pytest.skip(
            f"Go is not here; install it with: {' '.join(debian.install_line(debian.COMPILERS['go'].values()))}"
        )
    program = tmp_path_factory.mktemp("expfmt") / "expfmt"
    command = ["go", "build", "-buildvcs=false", "-o", str(program), "."]
    built = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=280)
    if built.returncode and NO_REGISTRY.search(built.stderr):
        pytest.skip(f"the parser could not be fetched:\n{built.stderr[-500:]}")
    assert built.returncode == 0, built.stderr

    def run(text: str) -> dict[str, dict[str, object]]:
        done = subprocess.run([program], input=text, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_both_parsers_read_the_same(repository, start, parse):
    repository.identity("plain", versions=(1, 2), extra="version_policy { all {} }")
    repository.identity("tagged", extra=TAGS)
    server = start("--metrics-config=histogram_latencies=true").wait_ready()
    for model in ("plain", "tagged"):
        assert server.infer(model, [0.5] * 16).status == 200
    text = server.scrape()
    theirs = parse(text)
    # The one in Go leaves out families without samples; the one in Python takes `_total` off counters.
    ours = [family for family in text_string_to_metric_families(text) if family.samples]
    assert {name.removesuffix("_total"): row["type"] for name, row in theirs.items()} == {
        family.name: family.type for family in ours
    }
    counts = {name.removesuffix("_total"): row["samples"] for name, row in theirs.items()}
    for family in ours:
        series = [sample for sample in family.samples if not sample.name.endswith(("_bucket", "_sum"))]
        assert counts[family.name] == len(series), family.name
    assert re.search(r'_team="a \\"quoted\\" \\\\ one"', text)


@pytest.mark.parametrize(
    "broken",
    ["a{b=c} 1\n", "a one\n", "# TYPE a histogram\na 1\n# TYPE a counter\n", 'a{b="c"} 1'],
    ids=["label", "value", "type-after-sample", "no-line-end"],
)
def test_the_parser_refuses_what_is_wrong(parse, broken):
    with pytest.raises(AssertionError, match="error"):
        parse(broken)
