"""What works with each format, found out on a running server; as a program it writes the table of the documents.

`python -m tests.support.compatibility` writes `docs/reference/compatibility.md`; `tests/integration/test_formats.py`
holds the page to what it finds itself, but for the figures of the machine.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

from benches.measure import cpu_model, pss_bytes, rss_bytes
from naiad.backends.registry import BACKENDS
from naiad.cli.inspect import find
from tests.support.formats import FORMATS, ROOT, Format, rows, without_machine
from tests.support.server import Serve, serve

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
EXPLICIT = "--model-control-mode=explicit"
MB = 1e6
NONE = "-"
HEAD = (
    "format", "backend", "recognised", "signature", "configuration", "dry run", "batching", "answers equal",
    "load ms, first", "load ms, again", "RSS MB", "PSS MB",
)  # fmt: skip
FIGURES = 4
"""Columns at the end that depend on the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table."""

    label: str
    backend: str
    recognised: str
    """The format's name as recognition gives it."""
    signature: str
    configuration: str
    dry_run: str
    batching: bool
    equal: bool
    first_ms: float
    again_ms: float
    rss: int
    pss: int

    def cells(self) -> list[str]:
        """As printed."""
        yes = {True: "yes", False: "**no**"}
        figures = [f"{self.first_ms:,.0f}", f"{self.again_ms:,.0f}", f"{self.rss / MB:,.0f}", f"{self.pss / MB:,.0f}"]
        told = [self.label, f"`{self.backend}`", self.recognised, self.signature, self.configuration, self.dry_run]
        return [*told, yes[self.batching], yes[self.equal], *figures]


def examine(server: Serve, of: Format, model: Path, answers: dict[int, np.ndarray]) -> Row:
    """Loads the model twice, asks it and looks at its worker; it stays loaded."""
    found = find(model)
    signature = found.signature
    told = NONE if signature is None else "whole" if signature.complete else "names" if signature.inputs else "none"
    first, again = _load_ms(server, of.name), _reload_ms(server, of.name)
    config = server.get(f"/v2/models/{of.name}/config").json
    given, taken = config["input"][0]["name"], config["output"][0]["name"]
    equal = all(
        _equal(_infer(server, of.name, rows(batch), (given, taken)), answer) for batch, answer in answers.items()
    )
    pid = next(
        record["pid"]
        for record in reversed(server.records())
        if record["message"] == "worker ready" and record["model"] == of.name
    )
    return Row(
        label=of.label,
        backend=found.backend.name,
        recognised=without_machine(signature.format) if signature is not None else NONE,
        signature=told,
        configuration="needed" if of.config else "none",
        dry_run=NONE if not BACKENDS[of.backend].reads_signature else "checks it" if of.config else "completes it",
        batching=config["max_batch_size"] > 1,
        equal=equal,
        first_ms=first,
        again_ms=again,
        rss=rss_bytes(pid),
        pss=pss_bytes(pid),
    )


def _load_ms(server: Serve, name: str) -> float:
    start = time.perf_counter()
    answer = server.post(f"/v2/repository/models/{name}/load")
    took = (time.perf_counter() - start) * 1e3
    assert answer.status == 200, answer.body
    return took


def _reload_ms(server: Serve, name: str) -> float:
    """A load where the framework is imported already, if its zygote lives on."""
    assert server.post(f"/v2/repository/models/{name}/unload").status == 200
    return _load_ms(server, name)


def _infer(server: Serve, name: str, given: np.ndarray, names: tuple[str, str]) -> np.ndarray:
    tensor = InferInput(names[0], list(given.shape), "FP32")
    tensor.set_data_from_numpy(given)
    with InferenceServerClient(server.address, network_timeout=60) as client:
        return client.infer(name, [tensor]).as_numpy(names[1])


def _equal(answer: np.ndarray, expected: np.ndarray) -> bool:
    """To the tolerance of frameworks between batches of one size."""
    return answer.shape == expected.shape and bool(np.allclose(answer, expected, rtol=1e-5, atol=1e-6))


def render(found: list[Row], left_out: list[str]) -> str:
    """The page."""
    cores = os.cpu_count()
    head = f"""# Formats

Written by `python -m tests.support.compatibility`; do not edit. One small model (1,024 inputs, 8 outputs) in each
format, on a running server; `tests/integration/test_formats.py` checks each column but the figures at every run.

- *signature*: what the file says of its inputs; *configuration*: whether a `config.pbtxt` is needed;
- *dry run*: whether a run with zeros at load completes the configuration or checks it; *answers equal*: one and three
  rows give what the framework gives when it is called directly;
- *load, first*: from the load request to READY, the framework not imported yet; *again*: after an unload, from a warm
  zygote where the framework survives a fork;
- *RSS*, *PSS*: of the worker, pages that it shares with its zygote counted whole, and divided among the sharers.

Figures: {cpu_model()}, {cores} cores, Python {platform.python_version()}.

"""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in found)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return head + table + "".join(f"\nNot tried: {line}\n" for line in left_out)


def printed() -> dict[str, list[str]]:
    """The page's cells by label, without the figures."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]
    return {line[0]: line[:-FIGURES] for line in cells}


def main() -> int:
    found, left_out = [], []
    for each in FORMATS:  # a server each, so that no zygote is warm
        if reason := each.absent():
            left_out.append(f"{each.label}: {reason}")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "models"
            answers = each.write(root / each.name)
            with serve(root, Path(scratch) / "log", EXPLICIT) as server:
                found.append(examine(server, each, root / each.name, answers))
        print(dataclasses.asdict(found[-1]), file=sys.stderr)
    PAGE.write_text(render(found, left_out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
