"""Every route of every service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from evenkeel.contracts.http import feature, governance, ingest, monitor, operations, registry, serving, trainer
from evenkeel.contracts.http.route import Route

ROUTES: Final[Mapping[str, tuple[Route[Any], ...]]] = {
    "ingest": ingest.ROUTES + operations.ROUTES,
    "feature": feature.ROUTES + operations.ROUTES,
    "trainer": trainer.ROUTES + operations.ROUTES,
    "registry": registry.ROUTES + operations.ROUTES,
    "serving": serving.ROUTES + operations.ROUTES,
    "monitor": monitor.ROUTES + operations.ROUTES,
    "governance": governance.ROUTES + operations.ROUTES,
}
