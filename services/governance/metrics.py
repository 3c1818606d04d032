"""Metrics of governance: the sizes of its log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from evenkeel.libs.telemetry.metrics import read
from evenkeel.libs.telemetry.names import counter, gauge
from evenkeel.services.governance.context import GovernanceContext

LEAVES: Final = gauge("evenkeel_log_leaves", "Records in the audit log.")
SIGNED_LEAVES: Final = gauge("evenkeel_log_signed_leaves", "Records under the newest checkpoint.")
DUPLICATE_LEAVES: Final = gauge("evenkeel_log_duplicate_leaves", "Records whose event id was logged before.")
OPAQUE: Final = counter("evenkeel_log_opaque_leaves", "Control-plane records that could not be read, since the start.")

NAMES: Final = (LEAVES, SIGNED_LEAVES, DUPLICATE_LEAVES, OPAQUE)


class GovernanceMetrics(Collector):
    """Reads what the context counts."""

    def __init__(self, ctx: GovernanceContext) -> None:
        self._ctx = ctx

    def collect(self) -> Iterable[Metric]:
        ctx = self._ctx
        for name, value in (
            (LEAVES, ctx.size),
            (SIGNED_LEAVES, ctx.signed_size),
            (DUPLICATE_LEAVES, ctx.duplicates),
            (OPAQUE, ctx.opaque),
        ):
            yield read(name, [((), value)])
