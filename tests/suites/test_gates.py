"""What every gate of the catalogue must show: it passes, it fails, and it says why. A row without a shortcoming here turns
the first test red."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final, NamedTuple

import pytest

from evenkeel.contracts.declaration import PromotionPolicy
from evenkeel.contracts.payload import WORD_PATTERN
from evenkeel.contracts.registry import GateDecided
from evenkeel.contracts.trainer import Scores
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.packages.package import PackageRef
from evenkeel.services.registry.domain.gates import GATES, Gate, Proposal, decide_gates
from evenkeel.services.registry.domain.promotion import Champion
from tests.makers import comparison, run_completed

OLD, NEW = "sha256:" + "0" * 64, "sha256:" + "1" * 64
COMPARISON: Final = comparison(
    n=5000,
    candidate=0.78,
    champion=0.77,
    improvement=0.01,
    standard_error=0.004,
    improvement_lower=0.004,
    improvement_upper=0.016,
)
GOOD: Final = Proposal(
    run=run_completed(PackageRef(NEW, "packages/new", 1000), beats=OLD, compared=COMPARISON, view_version="v1"),
    package_fault=None,
    champion=Champion(epoch=3, version=2, package=OLD, since_us=10 * DAY_US, previous_version=1),
    policy=PromotionPolicy.model_validate({"margin": 0.001, "confidence": 0.9, "max_bytes": 1000, "cooldown": "10d"}),
    view_version="v1",
    now_us=20 * DAY_US,
)
"""It passes every gate, and those with a bar on the very edge."""


def but(**evidence: Any) -> Proposal:
    """A run that brought something else."""
    return replace(GOOD, run=GOOD.run.model_copy(update=evidence))


class Shortcoming(NamedTuple):
    """A proposal that one gate refuses, a word of its reason, and the numbers that it looked at."""

    proposal: Proposal
    says: str
    value: float | None = None
    bar: float | None = None


SHORTCOMINGS: Final[dict[str, list[Shortcoming]]] = {
    "golden_rows": [Shortcoming(replace(GOOD, package_fault="SignatureInvalid: altered"), "SignatureInvalid: altered")],
    "package_size": [Shortcoming(but(package_bytes=1001), "1,001 bytes of at most 1,000", 1001, 1000)],
    "view_version": [
        Shortcoming(but(view_version="v0"), "trained on view v0, declared is v1"),
        Shortcoming(replace(GOOD, view_version="v2"), "trained on view v1, declared is v2"),
    ],
    "cooldown": [
        Shortcoming(
            replace(GOOD, now_us=20 * DAY_US - 1_000_000), "the cooldown is 10.0", 10 * 86_400 - 1, 10 * 86_400
        ),
    ],
    "better_than_champion": [
        Shortcoming(
            but(comparison=COMPARISON.model_copy(update={"improvement_lower": 0.001})),
            "by more than +0.0010",
            0.001,
            0.001,
        ),
        Shortcoming(
            but(comparison=COMPARISON.model_copy(update={"confidence": 0.89})), "the policy wants 0.9", 0.004, 0.001
        ),
        Shortcoming(but(comparison=None), "no comparison"),
        Shortcoming(but(champion=Scores(digest=NEW, metrics={})), "train again"),
    ],
}
every_gate: Final = pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)


def test_every_gate_has_a_shortcoming_and_a_name_of_its_own() -> None:
    names = [gate.name for gate in GATES]
    assert len(set(names)) == len(names)
    assert set(SHORTCOMINGS) == set(names)
    assert all(re.fullmatch(WORD_PATTERN, name) for name in names)


@every_gate
def test_it_passes_what_is_good_and_says_what_it_saw(gate: Gate) -> None:
    verdict = gate.decide(GOOD)
    assert verdict.passed
    assert verdict.detail
    assert gate.decide(GOOD) == verdict


@every_gate
def test_it_alone_refuses_its_shortcoming_and_says_why(gate: Gate) -> None:
    for proposal, says, value, bar in SHORTCOMINGS[gate.name]:
        verdicts = decide_gates(proposal)
        assert [name for name, verdict in verdicts.items() if not verdict.passed] == [gate.name]
        verdict = verdicts[gate.name]
        assert says in verdict.detail
        assert (verdict.value, verdict.bar) == (value, bar)


@every_gate
def test_its_verdict_can_be_published(gate: Gate) -> None:
    for proposal in (GOOD, *(one.proposal for one in SHORTCOMINGS[gate.name])):
        verdict = gate.decide(proposal)
        said = GateDecided(
            model="m",
            version=2,
            package=NEW,
            run_id="run",
            gate=gate.name,
            of=len(GATES),
            passed=verdict.passed,
            value=verdict.value,
            bar=verdict.bar,
            detail=verdict.detail,
        )
        assert GateDecided.model_validate_json(said.model_dump_json()) == said


@every_gate
def test_the_first_model_passes_with_nobody_to_replace(gate: Gate) -> None:
    assert gate.decide(replace(but(comparison=None, champion=None), champion=None)).passed
