"""Whether the package is small enough for those who load it."""

from __future__ import annotations

from evenkeel.services.registry.domain.gates.gate import Proposal
from evenkeel.services.registry.domain.verdict import Verdict


def decide(proposal: Proposal) -> Verdict:
    """Passes up to the policy's `max_bytes`. Value and bar are bytes."""
    size, most = proposal.run.package_bytes, proposal.policy.max_bytes
    return Verdict(size <= most, f"{size:,} bytes of at most {most:,}", size, most)
