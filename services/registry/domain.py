"""Gates, promotion, approval, rollback: pure decisions over what is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evenkeel.contracts.declaration import PromotionPolicy
from evenkeel.contracts.trainer import Comparison


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a run brought, as far as gates look at it."""

    package: str
    package_bytes: int
    view_version: str
    comparison: Comparison | None
    compared_with: str | None
    """Digest of the champion that it was compared with."""
    package_fault: str | None
    """Why the package cannot be used; None if it verified and answered its golden rows."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that answers."""

    epoch: int
    version: int
    package: str
    since_us: int
    """Event time of its promotion."""
    previous_version: int | None


@dataclass(frozen=True, slots=True)
class Gate:
    """One verdict, with the value that was looked at and the bar it was held to."""

    gate: str
    passed: bool
    detail: str
    value: float | None = None
    bar: float | None = None


def decide_gates(
    candidate: Candidate, champion: Champion | None, policy: PromotionPolicy, view_version: str, now_us: int
) -> list[Gate]:
    """Every gate, also behind one that failed: an approver wants to see them all. `now_us` is event time."""
    return [
        _golden_rows(candidate),
        Gate(
            "package_size",
            candidate.package_bytes <= policy.max_bytes,
            f"{candidate.package_bytes:,} bytes of at most {policy.max_bytes:,}",
            candidate.package_bytes,
            policy.max_bytes,
        ),
        Gate(
            "view_version",
            candidate.view_version == view_version,
            f"trained on view {candidate.view_version}, declared is {view_version}",
        ),
        _cooldown(champion, policy, now_us),
        _better(candidate, champion, policy),
    ]


def _golden_rows(candidate: Candidate) -> Gate:
    fault = candidate.package_fault
    return Gate("golden_rows", fault is None, fault or "the package verified and answered its golden rows")


def _cooldown(champion: Champion | None, policy: PromotionPolicy, now_us: int) -> Gate:
    if champion is None or policy.cooldown_us == 0:
        return Gate("cooldown", True, "no cooldown applies")
    passed = now_us - champion.since_us
    detail = f"the champion is {passed / 86_400e6:.1f} days old, the cooldown is {policy.cooldown_us / 86_400e6:.1f}"
    return Gate("cooldown", passed >= policy.cooldown_us, detail, passed / 1e6, policy.cooldown_us / 1e6)


def _better(candidate: Candidate, champion: Champion | None, policy: PromotionPolicy) -> Gate:
    if champion is None:
        return Gate("better_than_champion", True, "there is no champion to beat")
    compared = candidate.comparison
    if compared is None:
        return Gate("better_than_champion", False, "the run brought no comparison with the champion")
    if candidate.compared_with != champion.package:
        detail = f"it was compared with {candidate.compared_with}, the champion is {champion.package} now: train again"
        return Gate("better_than_champion", False, detail)
    if compared.confidence < policy.confidence:
        detail = f"the bound has confidence {compared.confidence:g}, the policy wants {policy.confidence:g}"
        return Gate("better_than_champion", False, detail, compared.improvement_lower, policy.margin)
    return Gate(
        "better_than_champion",
        compared.improvement_lower > policy.margin,
        f"{compared.metric} {compared.candidate:.4f} against {compared.champion:.4f} on the same {compared.n:,} rows: "
        f"better by {compared.improvement:+.4f}, by more than {compared.improvement_lower:+.4f} "
        f"with confidence {compared.confidence:g}",
        compared.improvement_lower,
        policy.margin,
    )


def after_gates(
    gates: Sequence[Gate], policy: PromotionPolicy, state: str
) -> Literal["refused", "awaiting_approval", "promote"]:
    """What follows from the gates for a version in this state: a quarantined one needs a new approval in any case, and only
    the risk `automatic` goes without one."""
    if not all(gate.passed for gate in gates):
        return "refused"
    return "promote" if policy.risk == "automatic" and state != "quarantined" else "awaiting_approval"


def is_in_bake(champion: Champion, policy: PromotionPolicy, now_us: int) -> bool:
    """Whether a degraded champion is still on trial (event time)."""
    return now_us - champion.since_us <= policy.bake_us
