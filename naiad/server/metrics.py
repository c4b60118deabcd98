"""What `--metrics-…` options mean for the core."""

from __future__ import annotations

from typing import Any

from naiad.server.options import FALSE, TRUE, ServeOptions, UsageError, usage

_SWITCHES = {"counter_latencies": True, "histogram_latencies": False}


def address(options: ServeOptions) -> str:
    """Where the metrics are: as HTTP unless said otherwise."""
    return options.metrics_address or options.http_address


def metrics_options(options: ServeOptions) -> dict[str, Any] | None:
    """The `metrics` object of `CoreOptions`; None = no metrics."""
    if not options.allow_metrics:
        return None
    return {
        "listener": {"address": address(options), "port": options.metrics_port, "reuse_port": False},
        **switches(options.metrics_config),
        "cpu": options.allow_cpu_metrics,
        "interval_ms": options.metrics_interval_ms,
    }


def switches(settings: tuple[str, ...]) -> dict[str, bool]:
    """`--metrics-config SETTING=BOOL`; raises `UsageError` for a setting that does nothing."""
    chosen = dict(_SWITCHES)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name not in _SWITCHES or not equals:
            known = ", ".join(_SWITCHES)
            raise UsageError(f"option --metrics-config: expected one of {known} with =BOOL, got '{setting}'\n\n{usage()}")
        if value.lower() not in TRUE | FALSE:
            raise UsageError(f"option --metrics-config: {name}: expected true or false, got '{value}'\n\n{usage()}")
        chosen[name] = value.lower() in TRUE
    return chosen
