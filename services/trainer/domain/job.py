"""What a training job is asked, and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evenkeel.contracts.trainer import Comparison
from evenkeel.libs.estimators import estimators_of
from evenkeel.libs.metrics import metrics_of
from evenkeel.libs.packages.manifest import Count, Finite, Parameter

Task: TypeAlias = Literal["binary", "regression"]
RefusalReason: TypeAlias = Literal["too_few_rows", "one_class", "parity", "stale_view", "error"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Candidate(Part):
    """An estimator and what to change in its default parameters."""

    estimator: str
    parameters: dict[str, Parameter] = {}


class DatasetClaim(Part):
    """The table version a run may read, and nothing after `label_cut` (RFC 3339); `uri` is what the package records."""

    uri: str
    version: Count
    label_cut: str
    offsets: dict[str, dict[str, Count]] = {}


class TrainingRequest(Part):
    """One training run. Durations count in event time.

    `as_of`: event time of the decision; nothing known later is used. `label_horizon_us`: how late labels may come.
    `holdout_us`: length of the evaluation window, which ends a label horizon before `label_cut`, so that every row of
    it has had the time to get its label. `max_span_us`, `max_rows`: the newest training rows used at most.
    `threads`: numeric libraries' threads; part of what makes a run repeatable, so the package records it.
    """

    model: str
    task: Task
    run_id: str
    stream: str
    label: str
    declaration: Count
    view_version: str
    features: tuple[str, ...] = Field(min_length=1)
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    metric: str
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.9
    threshold: Finite | None = None
    """Decision threshold of a binary model; None: the one with the best f1 on validation rows."""
    as_of: str
    label_horizon_us: Count
    holdout_us: Annotated[int, Field(gt=0)]
    max_span_us: Annotated[int, Field(gt=0)] | None = None
    max_rows: Annotated[int, Field(gt=0)] = 1_000_000
    min_training_rows: Annotated[int, Field(ge=20)] = 200
    min_evaluation_rows: Annotated[int, Field(ge=20)] = 100
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    time_budget_seconds: Annotated[float, Field(gt=0.0)] = 600.0
    dataset: DatasetClaim
    code_commit: str

    @model_validator(mode="after")
    def _task_fits(self) -> TrainingRequest:
        names = [metric.name for metric in metrics_of(self.task)]
        if self.metric not in names:
            raise ValueError(f"metric {self.metric} does not fit task {self.task}: use one of {', '.join(names)}")
        known = [estimator.name for estimator in estimators_of(self.task)]
        for candidate in self.candidates:
            if candidate.estimator not in known:
                message = f"candidate {candidate.estimator} does not fit task {self.task}"
                raise ValueError(f"{message}: use one of {', '.join(known)}")
        return self


class JobRequest(Part):
    """A run, and where its inputs and outputs are on this machine."""

    training: TrainingRequest
    table: str
    """Folder of the Delta table."""
    artifacts: str
    """Root of the packages."""
    keys: str
    """Key folder; the package is signed as `trainer`."""
    champion: str | None = None
    """Digest of the package to compare with."""


class Refused(Exception):
    """No model comes out of this run; `reason` is the word the event carries, the message says what to do."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RefusalReason = reason


class Scores(Part):
    """Metrics on the evaluation rows; None where they cannot tell."""

    digest: str | None
    metrics: dict[str, Finite | None]


class Trial(Part):
    """One candidate on the validation rows, which lie inside the training rows' time."""

    estimator: str
    parameters: dict[str, Parameter]
    value: Finite | None
    """The metric; None: not tried, the time budget was spent."""


class Evidence(Part):
    """What the gates look at; also the package's metrics.json."""

    metric: str
    training_rows: Count
    evaluation_rows: Count
    candidate: Scores
    champion: Scores | None
    comparison: Comparison | None
    no_comparison_because: str | None
    trials: tuple[Trial, ...]
    parity_rows: Count
    parity_difference: Finite
    parity_tolerance: Finite


class JobResult(Part):
    """The answer: a package with its evidence, or why there is none. Seconds are wall time."""

    outcome: Literal["completed", "refused"]
    run_id: str
    reason: RefusalReason | None = None
    detail: str = ""
    package: str | None = None
    package_uri: str | None = None
    package_bytes: Count | None = None
    estimator: str | None = None
    parameters: dict[str, Parameter] = {}
    threshold: Finite | None = None
    dataset_rows: Count = 0
    golden_rows: Count = 0
    golden_matched: bool = False
    evidence: Evidence | None = None
    seconds: dict[str, Finite] = {}
