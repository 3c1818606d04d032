"""What trainer publishes."""

from __future__ import annotations

from pydantic import Field

from evenkeel.contracts.payload import Caller, Count, Digest, Finite, Identifier, Integer, Payload, Time, Word


class DatasetVersion(Payload):
    """Claim check of a training table: what a run may read, and nothing after it."""

    uri: str
    version: Count
    rows: Count
    label_cut: Time
    as_of: Time | None = None
    """Order time that the cut was asked for; null: it was cut by its period."""
    offsets: dict[str, dict[str, Count]] = Field(default_factory=dict)


class RetrainDecided(Payload):
    """The answer to a trigger, also when it is no."""

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


class LoopChanged(Payload):
    """A person paused the loop of a model, or let it go on: while it is paused, every trigger is answered with no."""

    model: Identifier
    state: Word
    """paused, running."""
    by: str
    """As he called himself."""
    reason: str
    caller: Caller | None = None


class RunStarted(Payload):
    model: Identifier
    run_id: str
    attempt: Count
    dataset: DatasetVersion
    champion: Digest | None = None


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


class EvaluatedTwin(Payload):
    """The fit that the evidence is about, where another one serves: the same recipe, fitted before the evaluation rows."""

    package: Digest
    package_uri: str
    package_bytes: Count
    label_cut: Time
    """Labels that arrived before this order time were trained on; later ones were not."""
    training_rows: Count
    seed: Integer


class RunCompleted(Payload):
    """A trained, packaged candidate, with evidence on rows that neither model was trained on."""

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


class RunFailed(Payload):
    model: Identifier
    run_id: str
    attempt: Count
    reason: Word
    """too_few_rows, one_class, parity, timeout, crashed, stale_view, error."""
    detail: str
