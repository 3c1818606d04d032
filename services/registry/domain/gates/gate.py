"""What a gate is: a row of the catalogue, and what it looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evenkeel.contracts.declaration import PromotionPolicy
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.services.registry.domain.promotion import Champion
from evenkeel.services.registry.domain.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A version that would answer: what its run brought, whom it would replace, and under which policy."""

    run: RunCompleted
    package_fault: str | None
    """Why the package cannot be used; None if it verified and answered its golden rows."""
    champion: Champion | None
    policy: PromotionPolicy
    view_version: str
    """Of the features as they are declared now."""
    now_us: int
    """Event time."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One row of the catalogue. `decide` is pure: the same proposal always has the same verdict."""

    name: str
    decide: Callable[[Proposal], Verdict]
