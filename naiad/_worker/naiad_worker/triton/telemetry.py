"""Log lines and metrics of Triton's Python models."""

from __future__ import annotations

import bisect
import enum
import inspect
import os
import sys
import threading
from typing import Any

from naiad_worker.triton.errors import TritonModelException


class LogLevel(enum.IntEnum):
    """How much a log line matters."""

    INFO = 0
    WARNING = 1
    ERROR = 2
    VERBOSE = 3


class Logger:
    """Writes lines to the server's log, each with its level and the place in the model that says it."""

    LogLevel = LogLevel
    INFO, WARNING, ERROR, VERBOSE = LogLevel.INFO, LogLevel.WARNING, LogLevel.ERROR, LogLevel.VERBOSE

    @staticmethod
    def log(message: str, level: LogLevel = LogLevel.INFO) -> None:
        """One line of this level."""
        _write(message, level)

    @staticmethod
    def log_info(message: str) -> None:
        """One line of information."""
        _write(message, LogLevel.INFO)

    @staticmethod
    def log_warn(message: str) -> None:
        """One warning."""
        _write(message, LogLevel.WARNING)

    @staticmethod
    def log_error(message: str) -> None:
        """One error."""
        _write(message, LogLevel.ERROR)

    @staticmethod
    def log_verbose(message: str) -> None:
        """One line for those who look closely: left out unless the server's log is verbose."""
        _write(message, LogLevel.VERBOSE)


VERBOSE = "WORKER_LOG_VERBOSE"
"""Set in the environment of a worker whose server logs verbosely."""


def _write(message: str, level: LogLevel) -> None:
    if level == LogLevel.VERBOSE and VERBOSE not in os.environ:
        return
    frame = inspect.currentframe()
    caller = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    place = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}: " if caller is not None else ""
    print(f"{level.name}: {place}{message}", file=sys.stderr, flush=True)


class MetricKind(enum.IntEnum):
    """What a metric does: only grow, be set, or count observations."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


_told = threading.Event()


def _tell_once() -> None:
    """Nobody should look for these in a scrape and wonder."""
    if not _told.is_set():
        _told.set()
        text = "WARNING: metrics of Python models are kept in the worker and are not scraped yet"
        print(text, file=sys.stderr, flush=True)


class Metric:
    """One metric of a family: its value lives in this worker."""

    def __init__(self, kind: MetricKind, labels: dict[str, str], buckets: list[float]) -> None:
        self._kind = kind
        self._labels = labels
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._value = 0.0
        self._lock = threading.Lock()

    def increment(self, value: float) -> None:
        """Adds to a counter or gauge; raises `TritonModelException` for another kind, or a counter that would fall."""
        if self._kind == MetricKind.HISTOGRAM:
            raise TritonModelException("a histogram has no increment; use observe")
        if self._kind == MetricKind.COUNTER and value < 0:
            raise TritonModelException(f"a counter only grows: expected 0 or more, got {value}")
        with self._lock:
            self._value += value

    def set(self, value: float) -> None:
        """Sets a gauge; raises `TritonModelException` for another kind."""
        if self._kind != MetricKind.GAUGE:
            raise TritonModelException(f"a {self._kind.name.lower()} cannot be set")
        with self._lock:
            self._value = float(value)

    def observe(self, value: float) -> None:
        """Counts an observation in a histogram; raises `TritonModelException` for another kind."""
        if self._kind != MetricKind.HISTOGRAM:
            raise TritonModelException(f"a {self._kind.name.lower()} has no observations")
        with self._lock:
            self._value += value
            self._counts[bisect.bisect_left(self._buckets, value)] += 1

    def value(self) -> float:
        """The value of a counter or gauge; raises `TritonModelException` for a histogram."""
        if self._kind == MetricKind.HISTOGRAM:
            raise TritonModelException("a histogram has no single value")
        return self._value


class MetricFamily:
    """Metrics of one name that differ in their labels."""

    COUNTER, GAUGE, HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        _tell_once()
        self._name = name
        self._description = description
        self._kind = MetricKind(kind)
        self._metrics: dict[tuple[tuple[str, str], ...], Metric] = {}

    def Metric(self, labels: dict[str, str] | None = None, buckets: list[float] | None = None) -> Metric:
        """The metric with these labels, made at the first call; `buckets` are a histogram's upper bounds, ascending."""
        if (buckets is not None) != (self._kind == MetricKind.HISTOGRAM):
            wanted = "needs" if self._kind == MetricKind.HISTOGRAM else "has no"
            raise TritonModelException(f"metric '{self._name}': a {self._kind.name.lower()} {wanted} buckets")
        bounds = list(buckets or [])
        if bounds != sorted(set(bounds)):
            raise TritonModelException(f"metric '{self._name}': buckets: expected ascending bounds, got {bounds}")
        named: dict[str, Any] = dict(labels or {})
        key = tuple(sorted((str(name), str(value)) for name, value in named.items()))
        if key not in self._metrics:
            self._metrics[key] = Metric(self._kind, dict(key), bounds)
        return self._metrics[key]
