"""Whether the package is what the trainer signed, and answers its golden rows as it did there."""

from __future__ import annotations

from evenkeel.services.registry.domain.gates.gate import Proposal
from evenkeel.services.registry.domain.verdict import Verdict


def decide(proposal: Proposal) -> Verdict:
    """Passes if the package verified and answered its golden rows."""
    fault = proposal.package_fault
    return Verdict(fault is None, fault or "the package verified and answered its golden rows")
