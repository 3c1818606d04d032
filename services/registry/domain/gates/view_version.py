"""Whether the candidate was trained on the features that are computed now."""

from __future__ import annotations

from evenkeel.services.registry.domain.gates.gate import Proposal
from evenkeel.services.registry.domain.verdict import Verdict


def decide(proposal: Proposal) -> Verdict:
    """Passes if both are one view version."""
    trained, declared = proposal.run.view_version, proposal.view_version
    return Verdict(trained == declared, f"trained on view {trained}, declared is {declared}")
