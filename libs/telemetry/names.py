"""Which metrics there are: a row for each, with its help text and labels. Those of one service are in its `metrics.py`.

A name begins with `evenkeel_` and ends with its unit, or with what is counted; Prometheus adds `_total` to counters. Each
sample carries the label `service` (libs.telemetry.metrics). No label grows with entities, events or requests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "evenkeel_"
_NAME: Final = re.compile(r"evenkeel_[a-z]+(_[a-z]+)*")
_FOREIGN: Final = re.compile(r"_(total|count|sum|bucket|us|ms|milliseconds|minutes|hours|kb|mb|percent|ratio)$")
"""Endings that Prometheus adds by itself, and units that are not base units."""


@dataclass(frozen=True, slots=True)
class MetricName:
    """One metric. `buckets`: upper bounds of a histogram, in the unit that its name ends with."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None or _FOREIGN.search(self.name) is not None:
            raise ValueError(f"{self.name}: a metric is called {PREFIX}…, in small letters, and ends with a base unit")
        if "service" in self.labels:
            raise ValueError(f"{self.name}: every sample has the label service already")
        if (self.kind == "histogram") != bool(self.buckets):
            raise ValueError(f"{self.name}: a histogram has buckets, and nothing else has")


def counter(name: str, help_text: str, *labels: str) -> MetricName:
    return MetricName(name, "counter", help_text, labels)


def gauge(name: str, help_text: str, *labels: str) -> MetricName:
    return MetricName(name, "gauge", help_text, labels)


def histogram(name: str, help_text: str, *labels: str, buckets: tuple[float, ...]) -> MetricName:
    return MetricName(name, "histogram", help_text, labels, buckets)


EVENTS_CONSUMED: Final = counter("evenkeel_events_consumed", "Records taken in.", "topic")
EVENTS_PUBLISHED: Final = counter("evenkeel_events_published", "Records acknowledged by the broker.", "topic")
EVENTS_REPEATED: Final = counter("evenkeel_events_repeated", "Records that were applied before, skipped.", "topic")
EVENTS_DEAD_LETTERED: Final = counter(
    "evenkeel_events_dead_lettered", "Records of our own topics that could not be used.", "topic"
)
RETRIES: Final = counter("evenkeel_retries", "Waits for broker, store or a fact.", "kind")
TRANSACTION_SECONDS: Final = histogram(
    "evenkeel_transaction_seconds",
    "Time of one transaction.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
CONSUMER_LAG: Final = gauge("evenkeel_consumer_lag_records", "Records behind the end of the topic.", "topic")
MERGE_PENDING: Final = gauge("evenkeel_merge_pending_records", "Records that the event-time merge holds.")
PARKED: Final = gauge("evenkeel_parked_records", "Records of parked keys.")
OUTBOX_ROWS: Final = gauge("evenkeel_outbox_rows", "Committed batches that are not published yet.")
OUTBOX_BYTES: Final = gauge("evenkeel_outbox_bytes", "Size of the committed batches that are not published yet.")
DISK_FREE: Final = gauge("evenkeel_disk_free_bytes", "Free on the data folder's disk.")
READY: Final = gauge("evenkeel_ready", "1 while the service is ready.")
BUILD: Final = gauge("evenkeel_build_info", "Always 1; the label has the release.", "version")

NAMES: Final = (
    EVENTS_CONSUMED,
    EVENTS_PUBLISHED,
    EVENTS_REPEATED,
    EVENTS_DEAD_LETTERED,
    RETRIES,
    TRANSACTION_SECONDS,
    CONSUMER_LAG,
    MERGE_PENDING,
    PARKED,
    OUTBOX_ROWS,
    OUTBOX_BYTES,
    DISK_FREE,
    READY,
    BUILD,
)
"""Those of the runtime, which every service has."""
