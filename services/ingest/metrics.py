"""Metrics of ingest. They count since the store was made, not since the process started."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from evenkeel.libs.telemetry.metrics import read
from evenkeel.libs.telemetry.names import counter, gauge
from evenkeel.services.ingest.context import IngestContext

ACCEPTED: Final = counter("evenkeel_records_accepted", "Raw records that became events or labels.", "stream")
LATE: Final = counter("evenkeel_records_late", "Accepted records behind the watermark.", "stream")
REJECTED: Final = counter("evenkeel_records_rejected", "Raw records that were not taken.", "stream", "rule")
HEARTBEATS: Final = counter("evenkeel_heartbeats_received", "Heartbeats of producers.", "stream")
WAIT_EXPIRED: Final = counter(
    "evenkeel_partition_waits_expired", "Times that a silent raw partition was no longer waited for.", "stream"
)
WATERMARK: Final = gauge("evenkeel_stream_watermark_timestamp_seconds", "Watermark of a stream, Unix time.", "stream")
REMEMBERED: Final = gauge(
    "evenkeel_ids_remembered", "Ids within the horizon, against which repeats are found.", "stream"
)

NAMES: Final = (ACCEPTED, LATE, REJECTED, HEARTBEATS, WAIT_EXPIRED, WATERMARK, REMEMBERED)
_COUNTED: Final = ((ACCEPTED, "accepted"), (LATE, "late"), (HEARTBEATS, "heartbeats"), (WAIT_EXPIRED, "wait_expired"))


class IngestMetrics(Collector):
    """Reads the live streams."""

    def __init__(self, ctx: IngestContext) -> None:
        self._ctx = ctx

    def collect(self) -> Iterable[Metric]:
        streams = list(self._ctx.streams.items())
        for name, kind in _COUNTED:
            yield read(name, (((stream,), state.counts[kind]) for stream, state in streams))
        yield read(
            REJECTED,
            (((stream, rule), count) for stream, state in streams for rule, count in list(state.rejected.items())),
        )
        marks = ((stream, state.clock.watermark_us) for stream, state in streams)
        yield read(WATERMARK, (((stream,), mark_us / 1e6) for stream, mark_us in marks if mark_us is not None))
        yield read(REMEMBERED, (((stream,), len(state.seen)) for stream, state in streams))
