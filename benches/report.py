"""Renders measured rounds as a table: medians, ranges, ratios between servers and the bars they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benches.direct import at_batch
from benches.scenarios import SCENARIOS, Bars

Row = dict[str, Any]
Groups = dict[tuple[str, int], dict[str, list[Row]]]


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
    costs = {int(size): seconds for size, seconds in result["direct_call_seconds"].items()}
    groups: Groups = {}
    for row in result["rows"]:
        groups.setdefault((row["scenario"], row["connections"]), {}).setdefault(row["server"], []).append(row)
    order = list(SCENARIOS)
    groups = dict(sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))
    lines = _head(result, costs) + _scenarios(groups)
    if groups:
        lines += _figures(groups, costs) + _ratios(groups, costs)
    lines += _scrapes(groups) + _idle(result["memory"]) + _soaked(result["soak"])
    return "\n".join(lines).rstrip() + "\n"


def _head(result: dict[str, Any], costs: dict[int, float]) -> list[str]:
    machine, options = result["machine"], result["options"]
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
    ]
    if costs:
        times = (f"{size}: {seconds * 1e6:.0f}" for size, seconds in costs.items())
        lines.append(f"- direct torch call, µs of CPU by batch: {', '.join(times)}")
    return [*lines, *(f"- {reason}" for reason in result["left_out"]), ""]


def _scenarios(groups: Groups) -> list[str]:
    names = dict.fromkeys(name for name, _ in groups)
    return [*(f"- {name}: {SCENARIOS[name].about}" for name in names), *([""] if names else [])]


def _figures(groups: Groups, costs: dict[int, float]) -> list[str]:
    lines = [
        "## Figures",
        "",
        "| scenario | conn. | server | requests/s | p50 µs | p99 µs | CPU s server · workers · generator | "
        "mean batch | requests per CPU s | RSS MB server · workers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (scenario, connections), by_server in groups.items():
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


def _ratios(groups: Groups, costs: dict[int, float]) -> list[str]:
    lines = [
        "## Ratios",
        "",
        "| scenario | connections | of | throughput | p50 | p99 | requests per CPU second | bars |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, connections), by_server in groups.items():
        reference, *others = SCENARIOS[name].servers
        for server in others:
            if reference not in by_server or server not in by_server:
                continue
            figures = _ratio(by_server[server], by_server[reference], costs)
            numbers = " | ".join(f"{figures[key]:.2f}" for key in ("throughput", "p50", "p99", "efficiency"))
            verdicts = _verdicts(SCENARIOS[name].bars, connections, figures)
            lines.append(f"| {name} | {connections} | {server} to {reference} | {numbers} | {verdicts} |")
    return [*lines, ""]


def _ratio(ours: list[Row], theirs: list[Row], costs: dict[int, float]) -> dict[str, float]:
    values: dict[str, Callable[[Row], float]] = {
        "throughput": lambda row: row["throughput"],
        "p50": lambda row: row["p50_us"],
        "p99": lambda row: row["p99_us"],
        "efficiency": lambda row: efficiency(row, costs),
    }
    return {name: _median(ours, value)[0] / max(_median(theirs, value)[0], 1e-9) for name, value in values.items()}


def _verdicts(bars: Bars, connections: int, figures: dict[str, float]) -> str:
    found = []
    if bars.p50 is not None and connections == 1:
        found.append(f"p50 ≤ {bars.p50:g}: {'met' if figures['p50'] <= bars.p50 else 'MISSED'}")
    if bars.throughput is not None and (connections > 1 or bars.p50 is None):
        found.append(_at_least("throughput", bars.throughput, figures["throughput"]))
    if bars.efficiency is not None:
        found.append(_at_least("per CPU s", bars.efficiency, figures["efficiency"]))
    return "; ".join(found) or "none"


def _at_least(name: str, bar: float, figure: float) -> str:
    return f"{name} ≥ {bar:g}: {'met' if figure >= bar else 'MISSED'}"


def _scrapes(groups: Groups) -> list[str]:
    found = {where: by_server for where, by_server in groups.items() if where[0] == "scrape"}
    if not found:
        return []
    lines = [
        "## A scrape each second under load",
        "",
        "| connections | server | ms a scrape | bytes | throughput to that without |",
        "|---|---|---|---|---|",
    ]
    for (_name, connections), by_server in found.items():
        for server, rows in sorted(by_server.items()):
            took, size, left = (
                _median(rows, lambda row, key=key: row["notes"][key])
                for key in ("scrape_ms", "scrape_bytes", "with_scrapes")
            )
            lines.append(
                f"| {connections} | {server} | {_cell(took, digits=1)} | {size[0]:,.0f} | {_cell(left, digits=2)} |"
            )
    return [*lines, ""]


def _idle(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## Memory with 1,000 idle gRPC streams and 1,000 idle HTTP connections",
        "",
        "| server | RSS MB fresh | with them | KB each | workers |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        each = (row["idle"] - row["fresh"]) / 2000 / 1e3
        lines.append(
            f"| {row['server']} | {row['fresh'] / 1e6:.0f} | {row['idle'] / 1e6:.0f} "
            f"| {each:.1f} | {row['workers'] / 1e6:.0f} |"
        )
    held = {row["server"]: row["idle"] for row in rows}
    ratio = held["naiad"] / held["triton"]
    return [*lines, "", f"Naiad to Triton: {ratio:.2f}; bar ≤ 1: {'met' if ratio <= 1 else 'MISSED'}.", ""]


def _soaked(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## Memory through a mixed load",
        "",
        "| server | seconds | RSS MB after a tenth | at most | at the end |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        held = " | ".join(f"{row[key] / 1e6:.0f}" for key in ("warm", "most", "end"))
        lines.append(f"| {row['server']} | {row['seconds']:g} | {held} |")
    return [*lines, ""]
