"""What follows from the gates' verdicts. What each gate must show is in tests/suites."""

from __future__ import annotations

import pytest

from evenkeel.contracts.declaration import PromotionPolicy
from evenkeel.libs.clock import DAY_US
from evenkeel.services.registry.domain.promotion import Champion, after_gates, is_in_bake
from evenkeel.services.registry.domain.verdict import Verdict

YES, NO = Verdict(True, "fine"), Verdict(False, "too large")
AUTOMATIC, APPROVAL = PromotionPolicy(), PromotionPolicy(risk="approval")


@pytest.mark.parametrize(
    ("verdicts", "policy", "state", "follows"),
    [
        ([YES, YES], AUTOMATIC, "registered", "promote"),
        ([YES, YES], APPROVAL, "registered", "awaiting_approval"),
        ([YES, YES], PromotionPolicy(risk="of-a-newer-release"), "registered", "awaiting_approval"),
        ([YES, YES], AUTOMATIC, "quarantined", "awaiting_approval"),
        ([YES, NO], AUTOMATIC, "registered", "refused"),
        ([NO, YES], APPROVAL, "registered", "refused"),
        ([NO, NO], AUTOMATIC, "quarantined", "refused"),
    ],
)
def test_what_follows_from_the_gates(
    verdicts: list[Verdict], policy: PromotionPolicy, state: str, follows: str
) -> None:
    assert after_gates(verdicts, policy, state) == follows


def test_the_bake_period_ends() -> None:
    champion = Champion(epoch=3, version=2, package="p", since_us=10 * DAY_US, previous_version=1)
    policy = PromotionPolicy.model_validate({"bake": "7d"})
    assert is_in_bake(champion, policy, 17 * DAY_US)
    assert not is_in_bake(champion, policy, 17 * DAY_US + 1)
