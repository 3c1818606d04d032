"""Metrics of ingest. They count since the store was made, not since the process started."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from evenkeel.services.ingest.context import IngestContext


class IngestMetrics(Collector):
    def __init__(self, ctx: IngestContext) -> None:
        self._ctx = ctx

    def collect(self) -> Iterable[Metric]:
        counted = {
            "accepted": CounterMetricFamily("ingest_accepted", "Records accepted.", labels=["stream"]),
            "late": CounterMetricFamily("ingest_late", "Accepted records behind the watermark.", labels=["stream"]),
            "heartbeats": CounterMetricFamily("ingest_heartbeats", "Heartbeats of producers.", labels=["stream"]),
            "wait_expired": CounterMetricFamily(
                "ingest_wait_expired", "Times that a silent raw partition was left out.", labels=["stream"]
            ),
        }
        rejected = CounterMetricFamily("ingest_rejected", "Records rejected.", labels=["stream", "rule"])
        watermark = GaugeMetricFamily("ingest_watermark_seconds", "Watermark, Unix time.", labels=["stream"])
        remembered = GaugeMetricFamily("ingest_ids_remembered", "Ids within the horizon.", labels=["stream"])
        for name, stream in list(self._ctx.streams.items()):
            for what, family in counted.items():
                family.add_metric([name], stream.counts[what])
            for rule, count in list(stream.rejected.items()):
                rejected.add_metric([name, rule], count)
            remembered.add_metric([name], len(stream.seen))
            if stream.clock.watermark_us is not None:
                watermark.add_metric([name], stream.clock.watermark_us / 1e6)
        return [*counted.values(), rejected, watermark, remembered]
