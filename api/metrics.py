"""The numbers of `/metrics`: those of the warehouse, kept for ten seconds, and the requests of this process.

Promise: however often it is asked, the database is read once in `FRESH_SECONDS`. Requests are counted by template of
the path, never by the path itself: no id becomes a label. Tracking answers itself and is not among them; its hits are
events. Written by `conventions`, read by the route.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Engine

from mautolib.maintenance.gauges import Family, collect, watchdog
from mautolib.settings import Settings

FRESH_SECONDS: Final = 10.0
#: What the watchdog sees changes in minutes.
WATCH_SECONDS: Final = 60.0
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The numbers of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mauto_http_requests", "Requests answered by this process.", ("method", "path", "status"),
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "mauto_http_request_seconds", "Time to the end of the answer.", ("method", "path"), buckets=_BUCKETS,
            registry=self._registry,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._kept: list[Family] = []
        self._read_at = float("-inf")
        self._seen: list[Family] = []
        self._seen_at = float("-inf")

    def observe(self, method: str, template: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "other"
        self._requests.labels(known, template, str(status)).inc()
        self._seconds.labels(known, template).observe(seconds)

    def text(self, engine: Engine, settings: Settings, *, now: datetime) -> bytes:
        """Everything in the text format of Prometheus."""
        warehouse = CollectorRegistry()
        warehouse.register(_Kept(self._families(engine, settings, now)))
        return generate_latest(warehouse) + generate_latest(self._registry)

    def _families(self, engine: Engine, settings: Settings, now: datetime) -> list[Family]:
        with self._lock:
            if time.monotonic() - self._read_at >= FRESH_SECONDS:
                with engine.begin() as tx:
                    self._kept = collect(tx, settings, now=now)
                    if time.monotonic() - self._seen_at >= WATCH_SECONDS:
                        self._seen = watchdog(tx, settings, now=now)
                        self._seen_at = time.monotonic()
                self._read_at = time.monotonic()
            return [*self._kept, *self._seen]


class _Kept:
    """A collector of families that were read already."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            labels = sorted({name for found, _ in family.samples for name in found})
            kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=labels)
            for found, value in family.samples:
                metric.add_metric([found[name] for name in labels], value)
            yield metric
