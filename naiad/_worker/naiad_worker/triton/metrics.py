"""Metrics of Triton's Python models: values live here, and what changes is told to the server, which is scraped."""

from __future__ import annotations

import bisect
import enum
import json
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from naiad_worker.triton.errors import TritonModelException

MOST_FAMILIES, MOST_METRICS, MOST_BUCKETS = 128, 4_096, 100
"""Of one model; the server has the same bounds."""
MOST_TEXT = 2_048
"""Bytes of the labels of one metric, and of a family's name and description."""
RESERVED = ("nv_", "naiad_")
_PAUSE_SECS = 0.1
_MESSAGE = 262_144
"""Characters after which a message is sent and another begun."""
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class MetricKind(enum.IntEnum):
    """What a metric does: only grow, be set, or count observations."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class Metric:
    """One metric of a family: its value as this worker has made it."""

    def __init__(self, family: _Family, labels: dict[str, str], buckets: list[float]) -> None:
        self._family = family
        self._kind = family.kind
        self._labels = labels
        self._buckets = buckets
        self._value = 0.0
        # What the server does not know yet.
        self._added = 0.0
        self._set_at = 0
        self._counts = [0] * (len(buckets) + 1)

    def increment(self, value: float) -> None:
        """Adds to a counter or gauge; raises `TritonModelException` for another kind, or a counter that would fall."""
        if self._kind == MetricKind.HISTOGRAM:
            raise TritonModelException("a histogram has no increment; use observe")
        value = float(value)
        if self._kind == MetricKind.COUNTER and not 0 <= value < math.inf:
            raise TritonModelException(f"a counter only grows: expected 0 or more, got {value}")
        with _book.lock:
            self._value += value
            self._added += value
            _book.changed(self)

    def set(self, value: float) -> None:
        """Sets a gauge; raises `TritonModelException` for another kind."""
        if self._kind != MetricKind.GAUGE:
            raise TritonModelException(f"a {self._kind.name.lower()} cannot be set")
        value = float(value)
        with _book.lock:
            self._value = value
            self._set_at = time.monotonic_ns()
            _book.changed(self)

    def observe(self, value: float) -> None:
        """Counts an observation in a histogram; raises `TritonModelException` for another kind."""
        if self._kind != MetricKind.HISTOGRAM:
            raise TritonModelException(f"a {self._kind.name.lower()} has no observations")
        value = float(value)
        bucket = len(self._buckets) if math.isnan(value) else bisect.bisect_left(self._buckets, value)
        with _book.lock:
            self._added += value
            self._counts[bucket] += 1
            _book.changed(self)

    def value(self) -> float:
        """The value of a counter or gauge; raises `TritonModelException` for a histogram."""
        if self._kind == MetricKind.HISTOGRAM:
            raise TritonModelException("a histogram has no single value")
        return self._value

    def take(self) -> tuple[_Family, dict[str, Any]]:
        """What the server does not know yet; the book's lock is held."""
        change: dict[str, Any] = {"labels": self._labels}
        if self._kind == MetricKind.HISTOGRAM:
            change.update(bounds=[repr(bound) for bound in self._buckets], counts=self._counts, sum=repr(self._added))
            self._counts = [0] * len(self._counts)
        elif self._set_at:
            change.update(set=repr(self._value), at=self._set_at)
        else:
            change["add"] = repr(self._added)
        self._added, self._set_at = 0.0, 0
        return self._family, change


class _Family:
    """All metrics of one name."""

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        self.name = name
        self.description = description
        self.kind = kind
        self.metrics: dict[tuple[tuple[str, str], ...], Metric] = {}

    def metric(self, key: tuple[tuple[str, str], ...], buckets: list[float]) -> Metric:
        """The metric with these labels, made where there is none; raises `TritonModelException`."""
        with _book.lock:
            metric = self.metrics.get(key)
            if metric is None:
                if _book.count >= MOST_METRICS:
                    raise TritonModelException(f"metric '{self.name}': a model may have {MOST_METRICS} metrics")
                _book.count += 1
                metric = self.metrics[key] = Metric(self, dict(key), buckets)
                _book.changed(metric)  # so that it is shown at 0
            elif metric._buckets != buckets:
                raise TritonModelException(
                    f"metric '{self.name}': buckets: expected {metric._buckets} as before, got {buckets}"
                )
            return metric


class _Book:
    """Every family of this worker, and which of their metrics have changed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.families: dict[str, _Family] = {}
        self.count = 0
        self._changed: dict[int, Metric] = {}
        self._send: Callable[[dict[str, Any]], None] | None = None
        self._wake = threading.Event()
        self._teller: threading.Thread | None = None

    def changed(self, metric: Metric) -> None:
        """The server is to hear of it; the lock is held."""
        self._changed[id(metric)] = metric
        if self._send is not None and not self._wake.is_set():
            self._rouse()

    def connect(self, send: Callable[[dict[str, Any]], None]) -> None:
        """From now on changes are sent as METRIC messages."""
        with self.lock:
            self._send = send
            if self._changed:
                self._rouse()

    def _rouse(self) -> None:
        self._wake.set()
        if self._teller is None:
            self._teller = threading.Thread(target=self._tell, name="metrics", daemon=True)
            self._teller.start()

    def _tell(self) -> None:
        pause = threading.Event()
        try:
            while True:
                self._wake.wait()
                self.flush()
                pause.wait(_PAUSE_SECS)
        except Exception:
            return  # the server is gone

    def flush(self) -> None:
        """Sends what has changed; raises what sending raises."""
        with self.lock:
            send = self._send
            if send is None:
                return
            self._wake.clear()
            changes = [metric.take() for metric in self._changed.values()]
            self._changed.clear()
        families: dict[str, dict[str, Any]] = {}
        size = 0
        for family, change in changes:
            if family.name not in families:
                kind = family.kind.name.lower()
                families[family.name] = {"name": family.name, "help": family.description, "kind": kind, "metrics": []}
            families[family.name]["metrics"].append(change)
            size += len(json.dumps(change)) + len(family.name) + len(family.description)
            if size > _MESSAGE:
                send({"type": "METRIC", "families": list(families.values())})
                families, size = {}, 0
        if families:
            send({"type": "METRIC", "families": list(families.values())})


_book = _Book()
connect = _book.connect
flush = _book.flush


class MetricFamily:
    """Metrics of one name that differ in their labels; a second family of a name is the first."""

    COUNTER, GAUGE, HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        """Raises `TritonModelException` for a name that cannot be scraped or is the server's, and beyond the bounds."""
        kind = MetricKind(kind)
        name, description = str(name), _whole(description)
        if not _NAME.fullmatch(name):
            raise TritonModelException(f"metric '{name}': expected a name of letters, digits, '_' and ':'")
        if name.startswith(RESERVED):
            raise TritonModelException(f"metric '{name}': names that begin with 'nv_' or 'naiad_' are the server's own")
        _check_text(name, "name and description", name + description)
        with _book.lock:
            known = _book.families.get(name)
            if known is None:
                if len(_book.families) >= MOST_FAMILIES:
                    raise TritonModelException(f"metric '{name}': a model may have {MOST_FAMILIES} families of metrics")
                known = _book.families[name] = _Family(name, description, kind)
        if known.kind != kind:
            there = known.kind.name.lower()
            raise TritonModelException(f"metric '{name}': expected a {there} as before, got a {kind.name.lower()}")
        self._family = known

    def Metric(self, labels: dict[str, str] | None = None, buckets: list[float] | None = None) -> Metric:
        """The metric with these labels, made at the first call; `buckets` are a histogram's upper bounds, ascending.

        Raises `TritonModelException` for labels or buckets that cannot be scraped, and beyond the bounds.
        """
        family, name = self._family, self._family.name
        if (buckets is not None) != (family.kind == MetricKind.HISTOGRAM):
            wanted = "needs" if family.kind == MetricKind.HISTOGRAM else "has no"
            raise TritonModelException(f"metric '{name}': a {family.kind.name.lower()} {wanted} buckets")
        bounds = [float(bound) for bound in buckets or []]
        if bounds and bounds[-1] == math.inf:
            bounds.pop()  # it is always there
        if bounds != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise TritonModelException(f"metric '{name}': buckets: expected ascending bounds, got {buckets}")
        if len(bounds) > MOST_BUCKETS:
            raise TritonModelException(f"metric '{name}': expected at most {MOST_BUCKETS} buckets, got {len(bounds)}")
        key = tuple(sorted((str(label), _whole(value)) for label, value in dict(labels or {}).items()))
        for label, _ in key:
            if not _LABEL.fullmatch(label) or (label == "le" and family.kind == MetricKind.HISTOGRAM):
                raise TritonModelException(f"metric '{name}': '{label}' cannot be the name of a label")
        _check_text(name, "labels", "".join(label + value for label, value in key))
        return family.metric(key, bounds)


def _whole(text: Any) -> str:
    """A text that can be encoded."""
    return str(text).encode("utf-8", "replace").decode()


def _check_text(name: str, what: str, text: str) -> None:
    size = len(text.encode("utf-8", "replace"))
    if size > MOST_TEXT:
        raise TritonModelException(f"metric '{name[:80]}': {what}: expected at most {MOST_TEXT} bytes, got {size}")
