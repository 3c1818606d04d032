"""What follows from the gates, and for how long a champion is on trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evenkeel.contracts.declaration import PromotionPolicy
from evenkeel.services.registry.domain.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that answers."""

    epoch: int
    version: int
    package: str
    since_us: int
    """Event time of its promotion."""
    previous_version: int | None


def after_gates(
    verdicts: Sequence[Verdict], policy: PromotionPolicy, state: str
) -> Literal["refused", "awaiting_approval", "promote"]:
    """What follows from the gates for a version in this state: a quarantined one needs a new approval in any case, and only
    the risk `automatic` goes without one."""
    if not all(verdict.passed for verdict in verdicts):
        return "refused"
    return "promote" if policy.risk == "automatic" and state != "quarantined" else "awaiting_approval"


def is_in_bake(champion: Champion, policy: PromotionPolicy, now_us: int) -> bool:
    """Whether a degraded champion is still on trial (event time)."""
    return now_us - champion.since_us <= policy.bake_us
