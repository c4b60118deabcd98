"""What `--metrics-…` options mean for the core."""

from __future__ import annotations

from typing import Any

from naiad.server.options import TRUE, ServeOptions


def address(options: ServeOptions) -> str:
    """Where the metrics are: as HTTP unless said otherwise."""
    return options.metrics_address or options.http_address


def metrics_options(options: ServeOptions) -> dict[str, Any] | None:
    """The `metrics` object of `CoreOptions`; None = no metrics."""
    if not options.allow_metrics:
        return None
    settings = [setting.partition("=") for setting in options.metrics_config]
    return {
        "listener": {"address": address(options), "port": options.metrics_port, "reuse_port": False},
        **{name: value.lower() in TRUE for name, _, value in settings},
        "machine": {
            "cpu": options.allow_cpu_metrics,
            "gpu": options.allow_gpu_metrics,
            "interval_ms": options.metrics_interval_ms,
        },
    }
