"""Every gate there is, in the order in which they are told. A new one is a file beside this one and a row here; its suite is
tests/suites/test_gates.py."""

from __future__ import annotations

from typing import Final

from evenkeel.services.registry.domain.gates import (
    better_than_champion,
    cooldown,
    golden_rows,
    package_size,
    view_version,
)
from evenkeel.services.registry.domain.gates.gate import Gate, Proposal
from evenkeel.services.registry.domain.verdict import Verdict

GATES: Final[tuple[Gate, ...]] = (
    Gate("golden_rows", golden_rows.decide),
    Gate("package_size", package_size.decide),
    Gate("view_version", view_version.decide),
    Gate("cooldown", cooldown.decide),
    Gate("better_than_champion", better_than_champion.decide),
)


def decide_gates(proposal: Proposal) -> dict[str, Verdict]:
    """Every gate's verdict, by its name, also behind one that failed: an approver wants to see them all."""
    return {gate.name: gate.decide(proposal) for gate in GATES}
