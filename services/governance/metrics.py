"""What governance measures of itself: the sizes of its log."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from evenkeel.services.governance.context import GovernanceContext


class GovernanceMetrics(Collector):
    """Sizes of the log."""

    def __init__(self, ctx: GovernanceContext) -> None:
        self._ctx = ctx

    def collect(self) -> Iterable[Metric]:
        ctx = self._ctx
        for name, what, value in (
            ("leaves", "Records in the log.", ctx.size),
            ("signed_leaves", "Records under the newest checkpoint.", ctx.signed_size),
            ("duplicate_leaves", "Records whose event id was logged before.", ctx.duplicates),
        ):
            yield GaugeMetricFamily(f"governance_{name}", what, value)
        yield CounterMetricFamily(
            "governance_opaque", "Control-plane records that could not be read, since the start.", ctx.opaque
        )
