from __future__ import annotations

from pathlib import Path

import pytest

from naiad.errors import ConfigError
from naiad.server import tracing
from naiad.server.options import UsageError, parse, trace_options

REPOSITORY = "--model-repository=/m"


def read(*texts: str) -> dict[str, object]:
    return tracing.core_options(texts, service="naiad")


def test_nothing_is_traced_unless_asked():
    off = {"level": ["OFF"], "rate": 1000, "count": -1, "log_frequency": 0, "file": None, "opentelemetry": None}
    assert read() == off
    # As with Triton, a file alone is for settings that come later.
    assert read("triton,file=/t") == off | {"file": "/t"}


def test_settings_of_triton_files():
    texts = ("level=TIMESTAMPS", "level=TENSORS", "rate=5", "count=9", "triton,file=/t=,x", "triton,log-frequency=3")
    assert read(*texts) == {
        "level": ["TIMESTAMPS", "TENSORS"],
        "rate": 5,
        "count": 9,
        "log_frequency": 3,
        "file": "/t=,x",
        "opentelemetry": None,
    }


def test_settings_of_spans():
    got = read("mode=opentelemetry", "level=TIMESTAMPS", "rate=0")
    assert got["opentelemetry"] == {
        "url": "http://localhost:4318/v1/traces",
        "resource": [("service.name", "naiad")],
        "queue_size": 2048,
        "batch_size": 512,
        "delay_millis": 5000,
    }
    got = read(
        "mode=opentelemetry",
        "opentelemetry,url=http://h:1/x",
        "opentelemetry,resource=service.name=mine",
        "opentelemetry,resource=a=b=c",
        "opentelemetry,bsp_max_queue_size=10",
        "opentelemetry,bsp_max_export_batch_size=4",
        "opentelemetry,bsp_schedule_delay=0",
    )
    assert got["opentelemetry"] == {
        "url": "http://h:1/x",
        "resource": [("service.name", "mine"), ("a", "b=c")],
        "queue_size": 10,
        "batch_size": 4,
        "delay_millis": 0,
    }


def test_the_older_options_mean_the_same():
    words = ["--trace-file=/t", "--trace-level=TIMESTAMPS", "--trace-rate=2", "--trace-count=-1"]
    options = parse([REPOSITORY, *words, "--trace-log-frequency=7", "--trace-config=rate=3"])
    assert options.trace_file == Path("/t")
    got = trace_options(options)
    assert got == read("triton,file=/t", "level=TIMESTAMPS", "rate=3", "triton,log-frequency=7")


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["rate"], "expected level=, rate=, count=, mode=, triton,file="),
        (["rate="], "got 'rate='"),
        (["rate=x"], "rate: expected a number, got 'x'"),
        (["count=-2"], "count: expected -1 to"),
        (["speed=1"], "got 'speed=1'"),
        (["triton,rate=1"], "got 'triton,rate=1'"),
        (["file=/t"], "got 'file=/t'"),
        (["level=MUCH"], "level: expected OFF, TIMESTAMPS, TENSORS, got 'MUCH'"),
        (["level=OFF", "level=TENSORS"], "level OFF stands alone"),
        (["level=TIMESTAMPS"], "a level needs triton,file=FILE, or mode=opentelemetry"),
        (["level=TIMESTAMPS", "triton,file=/t", "rate=0"], "rate: expected at least 1, got 0"),
        (["mode=zipkin"], "mode: expected triton or opentelemetry, got 'zipkin'"),
        (["mode=opentelemetry", "level=TENSORS"], "mode opentelemetry has no level TENSORS"),
        (["opentelemetry,resource=x"], "expected opentelemetry,resource=NAME=VALUE"),
        (["mode=opentelemetry", "opentelemetry,bsp_max_queue_size=9"], "expected at most bsp_max_queue_size"),
        (["mode=opentelemetry", "opentelemetry,bsp_max_queue_size=0"], "bsp_max_queue_size: expected 1 to"),
    ],
)
def test_what_is_wrong_is_named(texts, reason):
    with pytest.raises(ConfigError) as caught:
        read(*texts)
    assert reason in str(caught.value)


def test_a_refusal_names_the_option():
    with pytest.raises(UsageError, match="option --trace-config: rate: expected a number, got 'x'"):
        parse([REPOSITORY, "--trace-config=rate=x"])
    with pytest.raises(UsageError, match="option --trace-count: expected at least -1"):
        parse([REPOSITORY, "--trace-count=-2"])
