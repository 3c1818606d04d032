"""Metrics of feature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from evenkeel.libs.telemetry.metrics import read
from evenkeel.libs.telemetry.names import gauge
from evenkeel.services.feature.context import FeatureContext

TABLE_BYTES: Final = gauge("evenkeel_training_table_bytes", "Training table on disk, all versions.", "model")

NAMES: Final = (TABLE_BYTES,)


class FeatureMetrics(Collector):
    """Sizes of the training tables, as of their last commits."""

    def __init__(self, ctx: FeatureContext) -> None:
        self._ctx = ctx

    def collect(self) -> Iterable[Metric]:
        yield read(TABLE_BYTES, (((model,), size) for model, size in list(self._ctx.table_bytes.items())))
