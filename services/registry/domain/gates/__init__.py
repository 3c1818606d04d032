"""What a version must pass before it may answer: one file and one row of the catalogue for each gate."""

from evenkeel.services.registry.domain.gates.catalogue import GATES, decide_gates
from evenkeel.services.registry.domain.gates.gate import Gate, Proposal

__all__ = ["GATES", "Gate", "Proposal", "decide_gates"]
