"""What a version must meet before it may answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evenkeel.contracts.declaration import PromotionPolicy
from evenkeel.contracts.trainer import Comparison
from evenkeel.libs.clock import DAY_US
from evenkeel.services.registry.domain import Candidate, Champion, after_gates, decide_gates, is_in_bake

OLD, NEW = "sha256:" + "0" * 64, "sha256:" + "1" * 64
CHAMPION = Champion(epoch=3, version=2, package=OLD, since_us=10 * DAY_US, previous_version=1)
POLICY = PromotionPolicy(margin=0.001, confidence=0.9)


def comparison(lower: float, confidence: float = 0.9) -> Comparison:
    return Comparison(
        metric="roc_auc",
        n=5000,
        candidate=0.78,
        champion=0.77,
        improvement=0.01,
        standard_error=0.01,
        improvement_lower=lower,
        improvement_upper=0.2,
        confidence=confidence,
    )


GOOD = Candidate(NEW, 1000, "v1", comparison(0.004), OLD, None)


def refused_by(
    candidate: Candidate, champion: Champion | None = CHAMPION, policy: PromotionPolicy = POLICY
) -> list[str]:
    gates = decide_gates(candidate, champion, policy, "v1", 20 * DAY_US)
    assert len(gates) == 5
    return [gate.gate for gate in gates if not gate.passed]


def test_a_better_candidate_passes() -> None:
    assert refused_by(GOOD) == []


def test_the_first_model_has_nobody_to_beat() -> None:
    assert refused_by(replace(GOOD, comparison=None, compared_with=None), champion=None) == []


@pytest.mark.parametrize(
    ("candidate", "gate"),
    [
        (replace(GOOD, comparison=comparison(0.001)), "better_than_champion"),
        (replace(GOOD, comparison=comparison(0.004, confidence=0.8)), "better_than_champion"),
        (replace(GOOD, comparison=None), "better_than_champion"),
        (replace(GOOD, compared_with=NEW), "better_than_champion"),
        (replace(GOOD, package_fault="SignatureInvalid: altered"), "golden_rows"),
        (replace(GOOD, package_bytes=POLICY.max_bytes + 1), "package_size"),
        (replace(GOOD, view_version="v0"), "view_version"),
    ],
)
def test_each_shortcoming_has_its_gate(candidate: Candidate, gate: str) -> None:
    assert refused_by(candidate) == [gate]


def test_a_cooldown_counts_in_event_time() -> None:
    assert refused_by(GOOD, policy=PromotionPolicy(cooldown=f"{11 * 24}h")) == ["cooldown"]
    assert refused_by(GOOD, policy=PromotionPolicy(cooldown=f"{10 * 24}h")) == []


def test_what_follows_from_the_gates() -> None:
    passed = decide_gates(GOOD, CHAMPION, POLICY, "v1", 20 * DAY_US)
    failed = decide_gates(replace(GOOD, view_version="v0"), CHAMPION, POLICY, "v1", 20 * DAY_US)
    assert after_gates(passed, POLICY, "registered") == "promote"
    assert after_gates(passed, PromotionPolicy(risk="approval"), "registered") == "awaiting_approval"
    assert after_gates(passed, POLICY, "quarantined") == "awaiting_approval"
    assert after_gates(failed, PromotionPolicy(risk="approval"), "registered") == "refused"


def test_the_bake_period_ends() -> None:
    policy = PromotionPolicy(bake="7d")
    assert is_in_bake(CHAMPION, policy, 17 * DAY_US)
    assert not is_in_bake(CHAMPION, policy, 17 * DAY_US + 1)
