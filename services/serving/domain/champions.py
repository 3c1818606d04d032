"""Which version answers: what was decided, what answers here (champions), and the steps between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evenkeel.services.serving.domain.requests import EventReader, RowReader

Predict: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float64]]
Outcome: TypeAlias = Literal["activated", "not_found", "digest", "signature", "golden_rows", "view_version", "load"]


@dataclass(frozen=True, slots=True)
class Target:
    """A version that a decision names, and the digest of its package."""

    version: int
    package: str
    threshold: float | None


@dataclass(frozen=True, slots=True)
class ChampionDecision:
    """The latest decision about a model: from `epoch` on, `target` answers. The rest is the event that said so."""

    model: str
    epoch: int
    target: Target
    view_version: str
    rollback: Target | None
    event_id: str
    correlation_id: str
    time_us: int
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was last told about an epoch on this replica; `number` counts the receipts of that epoch."""

    epoch: int
    outcome: str
    """An `Outcome`, or what another release called it."""
    number: int


@dataclass(frozen=True, slots=True)
class Champion:
    """A verified version at work. Immutable: a request takes one reference and answers by it, whatever comes."""

    model: str
    stream: str
    version: int
    epoch: int
    package: str
    view_version: str
    threshold: float | None
    is_fallback: bool
    """The epoch's own version could not be loaded; this is its named rollback target."""
    predict: Predict
    rows: RowReader
    events: EventReader
    loaded_us: int
    load_seconds: float
    observe_seconds: Callable[[float], Any]
    """Where its answers' latencies go."""


@dataclass(frozen=True, slots=True)
class Succession:
    """One model's succession here: who answers, and who answered before, kept warm."""

    active: Champion | None = None
    previous: Champion | None = None

    def wants(self, fact: ChampionDecision) -> bool:
        """Whether the decided version is still to be loaded. An epoch older than the active one is history."""
        active = self.active
        return active is None or active.epoch < fact.epoch or (active.epoch == fact.epoch and active.is_fallback)

    def fallback(self, fact: ChampionDecision) -> Target | None:
        """What may answer though it was not promoted: only if nothing does, and only the target that the decision names."""
        return fact.rollback if self.active is None else None

    def succeeded_by(self, champion: Champion) -> Succession:
        """The one swap. A champion that comes too late changes nothing."""
        active = self.active
        if active is not None and (active.epoch, not active.is_fallback) >= (champion.epoch, not champion.is_fallback):
            return self
        return Succession(champion, active)

    def warm(self, package: str) -> Champion | None:
        """A champion that has this package's verified bytes in memory."""
        return next((c for c in (self.active, self.previous) if c is not None and c.package == package), None)


def next_receipt(fact: ChampionDecision, outcome: Outcome, last: Receipt | None) -> Receipt | None:
    """The receipt to publish; None if exactly this was told already, as after a restart."""
    if last is None or last.epoch < fact.epoch:
        return Receipt(fact.epoch, outcome, 0)
    if last.epoch > fact.epoch or last.outcome == outcome:
        return None
    return Receipt(fact.epoch, outcome, last.number + 1)
