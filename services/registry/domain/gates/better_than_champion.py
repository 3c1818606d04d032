"""Whether the candidate is better than the champion on the same unseen rows, and surely so."""

from __future__ import annotations

from evenkeel.services.registry.domain.gates.gate import Proposal
from evenkeel.services.registry.domain.verdict import Verdict


def decide(proposal: Proposal) -> Verdict:
    """Passes if the improvement's lower bound exceeds the policy's `margin`. Value and bar are in the metric's unit.

    It fails without a comparison, if that was with another champion, or if its bound is less sure than the policy wants.
    """
    champion, policy, compared = proposal.champion, proposal.policy, proposal.run.comparison
    if champion is None:
        return Verdict(True, "there is no champion to beat")
    if compared is None:
        return Verdict(False, "the run brought no comparison with the champion")
    compared_with = proposal.run.champion.digest if proposal.run.champion else None
    if compared_with != champion.package:
        return Verdict(
            False, f"it was compared with {compared_with}, the champion is {champion.package} now: train again"
        )
    if compared.confidence < policy.confidence:
        detail = f"the bound has confidence {compared.confidence:g}, the policy wants {policy.confidence:g}"
        return Verdict(False, detail, compared.improvement_lower, policy.margin)
    return Verdict(
        compared.improvement_lower > policy.margin,
        f"{compared.metric} {compared.candidate:.4f} against {compared.champion:.4f} on the same {compared.n:,} rows: "
        f"better by {compared.improvement:+.4f}, by more than {compared.improvement_lower:+.4f} "
        f"with confidence {compared.confidence:g}",
        compared.improvement_lower,
        policy.margin,
    )
