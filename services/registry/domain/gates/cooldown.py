"""Whether the champion has answered for long enough."""

from __future__ import annotations

from evenkeel.services.registry.domain.gates.gate import Proposal
from evenkeel.services.registry.domain.verdict import Verdict


def decide(proposal: Proposal) -> Verdict:
    """Passes when the policy's `cooldown` of event time is over since the last promotion. Value and bar are seconds."""
    champion, cooldown_us = proposal.champion, proposal.policy.cooldown_us
    if champion is None or cooldown_us == 0:
        return Verdict(True, "no cooldown applies")
    age_us = proposal.now_us - champion.since_us
    detail = f"the champion is {age_us / 86_400e6:.1f} days old, the cooldown is {cooldown_us / 86_400e6:.1f}"
    return Verdict(age_us >= cooldown_us, detail, age_us / 1e6, cooldown_us / 1e6)
