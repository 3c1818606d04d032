"""Metrics of serving. Models are few and declared; no label grows with entities or requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from evenkeel.libs.telemetry import metrics
from evenkeel.libs.telemetry.names import counter, gauge, histogram

PREDICTION_SECONDS: Final = histogram(
    "evenkeel_prediction_seconds",
    "From a request's last byte to its answer.",
    "model",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
SWAPS: Final = counter("evenkeel_champion_swaps", "Champions put to work.", "model")
FAILURES: Final = counter("evenkeel_champion_failures", "Champions that could not be put to work.", "model", "reason")
UNSCORED: Final = counter("evenkeel_vectors_unscored", "Vectors without a prediction.", "reason")
REFUSED: Final = counter("evenkeel_requests_refused", "Requests to predict that were not answered.", "status")
VIEW_SLOTS: Final = counter("evenkeel_view_slots_applied", "Slots of the online view taken over.")
VIEW_ENTITIES: Final = gauge("evenkeel_view_entities", "Entities in the online view.", "model")

NAMES: Final = (PREDICTION_SECONDS, SWAPS, FAILURES, UNSCORED, REFUSED, VIEW_SLOTS, VIEW_ENTITIES)


class ServingMetrics(Collector):
    """Counted where it happens."""

    def __init__(self) -> None:
        self.latency = metrics.histogram(PREDICTION_SECONDS)
        self.swaps = metrics.counter(SWAPS)
        self.failures = metrics.counter(FAILURES)
        self.unscored = metrics.counter(UNSCORED)
        self.refusals = metrics.counter(REFUSED)
        self.slots = metrics.counter(VIEW_SLOTS)
        self.entities = metrics.gauge(VIEW_ENTITIES)

    def collect(self) -> Iterable[Metric]:
        for collector in vars(self).values():
            yield from collector.collect()
