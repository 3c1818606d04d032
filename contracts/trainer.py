"""What trainer publishes."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from evenkeel.contracts.payload import (
    Caller,
    Count,
    Digest,
    Fact,
    Finite,
    Identifier,
    Integer,
    Payload,
    Time,
    Word,
    person,
)
from evenkeel.contracts.words import count, seconds, short

TRIGGERS_IN_WORDS: Final = {
    "first_data": "there was enough data for a first model",
    "drift": "the inputs had drifted",
    "decay": "the champion had become worse",
    "schedule": "it was due",
    "command": "somebody asked for it",
}


class DatasetVersion(Payload):
    """Claim check of a training table: what a run may read, and nothing after it."""

    uri: str
    version: Count
    rows: Count
    label_cut: Time
    as_of: Time | None = None
    """Order time that the cut was asked for; null: it was cut by its period."""
    offsets: dict[str, dict[str, Count]] = Field(default_factory=dict)


class RetrainDecided(Fact):
    """The answer to a trigger, also when it is no."""

    what = "decision"

    model: Identifier
    retrain: bool
    trigger: Word
    """What asked: first_data, drift, decay, schedule, command."""
    reason: Word
    """accepted, or why not: cooldown, budget, insufficient_data, busy, no_dataset, superseded, paused."""
    detail: str
    cause_id: str
    """The event that asked."""
    as_of: Time
    """The last dataset cut at or before this event time is what the run reads."""
    dataset: DatasetVersion | None = None
    run_id: str | None = None
    caller: Caller | None = None
    """Who asked, if a person did."""

    def number(self, offset: int) -> int | None:
        return None

    def sentence(self) -> str:
        why = TRIGGERS_IN_WORDS.get(self.trigger, f"the trigger {self.trigger} asked")
        if self.retrain:
            return f"run {self.run_id} was decided because {why}: {self.detail}"
        return f"no run was decided although {why} ({self.reason}): {self.detail}"


class LoopChanged(Fact):
    """A person paused the loop of a model, or let it go on: while it is paused, every trigger is answered with no."""

    what = "loop"

    model: Identifier
    state: Word
    """paused, running."""
    by: str
    """As he called himself."""
    reason: str
    caller: Caller | None = None

    def number(self, offset: int) -> int | None:
        return None

    def sentence(self) -> str:
        loop = f"the loop of {self.model}"
        did = {"paused": f"paused {loop}", "running": f"resumed {loop}"}.get(self.state, f"set {loop} to {self.state}")
        return f"{person(self.by, self.caller)} {did}: {self.reason}"


class RunStarted(Fact):
    what = "run started"

    model: Identifier
    run_id: str
    attempt: Count
    dataset: DatasetVersion
    champion: Digest | None = None

    def number(self, offset: int) -> int | None:
        return self.attempt

    def sentence(self) -> str:
        against = "" if self.champion is None else f", against champion {short(self.champion)}"
        return f"attempt {self.attempt} of run {self.run_id} began on dataset version {self.dataset.version}{against}"


class Scores(Payload):
    """Metrics of one model on the evaluation rows."""

    digest: Digest | None = None
    metrics: dict[str, Finite | None]


class Comparison(Payload):
    """How much better the candidate is than the champion on the same unseen rows, in the metric's unit.

    `candidate` and `champion` are the metric as it is. `improvement` is oriented, whichever way the metric points: positive
    means that the candidate is better. `evenkeel.libs.metrics.compare` makes it, and nobody turns it again.
    """

    metric: Word
    n: Count
    candidate: Finite
    champion: Finite
    improvement: Finite
    standard_error: Finite
    improvement_lower: Finite
    """One-sided bound: the improvement exceeds it with probability `confidence`."""
    improvement_upper: Finite
    """One-sided bound: the improvement stays below it with probability `confidence`."""
    confidence: Finite

    def sentence(self) -> str:
        better = "better" if self.improvement >= 0 else "worse"
        return (
            f"{self.metric} {self.candidate:.4f} against the champion's {self.champion:.4f} on the same "
            f"{count(self.n, 'unseen row')}, {better} by {abs(self.improvement):.4f} (the improvement exceeds "
            f"{self.improvement_lower:+.4f} with {self.confidence:.0%} confidence)"
        )


class EvaluatedTwin(Payload):
    """The fit that the evidence is about, where another one serves: the same recipe, fitted before the evaluation rows."""

    package: Digest
    package_uri: str
    package_bytes: Count
    label_cut: Time
    """Labels that arrived before this order time were trained on; later ones were not."""
    training_rows: Count
    seed: Integer


class RunCompleted(Fact):
    """A trained, packaged candidate, with evidence on rows that neither model was trained on."""

    what = "run"

    model: Identifier
    run_id: str
    trigger: Word
    package: Digest
    package_uri: str
    package_bytes: Count
    view_version: str
    declaration: Count
    estimator: Word
    parameters: dict[str, float | Integer | str | bool | None]
    threshold: Finite | None = None
    dataset: DatasetVersion
    training_rows: Count
    evaluation_rows: Count
    evaluated: EvaluatedTwin | None = None
    """null: the package itself was evaluated."""
    candidate: Scores
    champion: Scores | None = None
    comparison: Comparison | None = None
    golden_rows: Count
    golden_matched: bool
    code_commit: str
    seed: Integer
    duration_seconds: Finite

    def number(self, offset: int) -> int | None:
        return None

    def sentence(self) -> str:
        evidence = "there was no champion to compare with"
        if self.comparison is not None:
            evidence = self.comparison.sentence()
        return (
            f"run {self.run_id} fitted {self.estimator} on {count(self.training_rows, 'row')} of dataset version "
            f"{self.dataset.version} in {seconds(self.duration_seconds)}; {evidence}; code {self.code_commit[:12]}, seed "
            f"{self.seed}"
        )


class RunFailed(Fact):
    what = "run failed"

    model: Identifier
    run_id: str
    attempt: Count
    reason: Word
    """too_few_rows, one_class, parity, timeout, crashed, stale_view, error."""
    detail: str

    def number(self, offset: int) -> int | None:
        return self.attempt

    def sentence(self) -> str:
        return f"attempt {self.attempt} of run {self.run_id} failed ({self.reason}): {self.detail}"
