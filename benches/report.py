"""Renders measured rounds as a table: medians, ranges, ratios to Triton and the bars they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benches.direct import at_batch

Row = dict[str, Any]

BARS = {
    ("identity", "throughput"): 3.0,
    ("lenet", "throughput"): 2.0,
    ("identity", "efficiency"): 6.0,
    ("lenet", "efficiency"): 6.0,
}
P50_BAR = 0.6


def efficiency(row: Row, costs: dict[int, float]) -> float:
    """Requests per CPU second of server and workers; for the LeNet less the direct calls' own CPU."""
    cpu = row["server_cpu"] + row["worker_cpu"]
    if row["scenario"] == "lenet":
        cpu -= row["executions"] * at_batch(costs, row["mean_batch"])
    return row["requests"] / max(cpu, 1e-9)


def _median(rows: list[Row], value: Callable[[Row], float]) -> tuple[float, float, float]:
    values = sorted(map(value, rows))
    return statistics.median(values), values[0], values[-1]


def _cell(figures: tuple[float, float, float], scale: float = 1.0, digits: int = 0) -> str:
    middle, low, high = (figure / scale for figure in figures)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def render(result: dict[str, Any]) -> str:
    """The whole page as Markdown."""
    machine, options = result["machine"], result["options"]
    costs = {int(size): seconds for size, seconds in result["direct_call_seconds"].items()}
    foreign = max((row["foreign_cpu"] / max(row["busy"], 1e-9) for row in result["rows"]), default=0.0)
    steal = max((row["steal"] / max(row["busy"], 1e-9) for row in result["rows"]), default=0.0)
    lines = [
        f"# Naiad beside Triton, {result['date']}",
        "",
        "Written by `python -m benches.run`; do not edit. Median of the rounds, range in brackets. Generators share",
        "the machine's cores with the servers, so read ratios, not absolute figures.",
        "",
        f"- machine: {machine['cpu']}, {machine['cores']} cores, kernel {machine['kernel']}, "
        f"Python {machine['python']}",
        f"- Naiad {machine['commit']}; Triton {machine['triton']}; {machine['generators']}",
        f"- {options['rounds']} rounds of {options['seconds']} s after one thrown away; order shuffled, "
        f"seed {options['seed']}",
        f"- CPU of others, at most: {foreign:.1%} of the busy time; stolen by the hypervisor: {steal:.1%}",
        "- direct torch call, µs of CPU by batch: "
        + ", ".join(f"{size}: {seconds * 1e6:.0f}" for size, seconds in costs.items()),
        "",
    ]
    groups: dict[tuple[str, int], dict[str, list[Row]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["scenario"], row["connections"]), {}).setdefault(row["server"], []).append(row)
    lines += _figures(groups, costs) + _ratios(groups, costs)
    return "\n".join(lines) + "\n"


def _figures(groups: dict[tuple[str, int], dict[str, list[Row]]], costs: dict[int, float]) -> list[str]:
    lines = [
        "## Figures",
        "",
        "| scenario | conn. | server | requests/s | p50 µs | p99 µs | CPU s server · workers · generator | "
        "mean batch | requests per CPU s | RSS MB server · workers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (scenario, connections), by_server in sorted(groups.items()):
        for server, rows in sorted(by_server.items()):
            cpu = " · ".join(
                f"{_median(rows, lambda row, key=key: row[key])[0]:.2f}"
                for key in ("server_cpu", "worker_cpu", "generator_cpu")
            )
            rss = " · ".join(
                f"{_median(rows, lambda row, key=key: row[key])[0] / 1e6:.0f}" for key in ("server_rss", "worker_rss")
            )
            lines.append(
                f"| {scenario} | {connections} | {server} | {_cell(_median(rows, lambda row: row['throughput']))} "
                f"| {_cell(_median(rows, lambda row: row['p50_us']))} "
                f"| {_cell(_median(rows, lambda row: row['p99_us']))} "
                f"| {cpu} | {_median(rows, lambda row: row['mean_batch'])[0]:.1f} "
                f"| {_cell(_median(rows, lambda row: efficiency(row, costs)))} | {rss} |"
            )
    return [*lines, ""]


def _ratios(groups: dict[tuple[str, int], dict[str, list[Row]]], costs: dict[int, float]) -> list[str]:
    lines = [
        "## Naiad to Triton",
        "",
        "| scenario | connections | throughput | p50 | p99 | requests per CPU second | bars |",
        "|---|---|---|---|---|---|---|",
    ]
    for (scenario, connections), by_server in sorted(groups.items()):
        if {"naiad", "triton"} - set(by_server):
            continue

        def ratio(value: Callable[[Row], float], pair: dict[str, list[Row]] = by_server) -> float:
            return _median(pair["naiad"], value)[0] / max(_median(pair["triton"], value)[0], 1e-9)

        figures = {
            "throughput": ratio(lambda row: row["throughput"]),
            "p50": ratio(lambda row: row["p50_us"]),
            "p99": ratio(lambda row: row["p99_us"]),
            "efficiency": ratio(lambda row: efficiency(row, costs)),
        }
        lines.append(
            f"| {scenario} | {connections} | {figures['throughput']:.2f} | {figures['p50']:.2f} | {figures['p99']:.2f} "
            f"| {figures['efficiency']:.2f} | {_verdicts(scenario, connections, figures)} |"
        )
    return [*lines, ""]


def _verdicts(scenario: str, connections: int, figures: dict[str, float]) -> str:
    found = []
    if connections == 1:
        found.append(f"p50 ≤ {P50_BAR}: {'met' if figures['p50'] <= P50_BAR else 'MISSED'}")
    else:
        bar = BARS[scenario, "throughput"]
        found.append(f"throughput ≥ {bar:g}: {'met' if figures['throughput'] >= bar else 'MISSED'}")
    bar = BARS[scenario, "efficiency"]
    found.append(f"per CPU s ≥ {bar:g}: {'met' if figures['efficiency'] >= bar else 'MISSED'}")
    return "; ".join(found)
