"""Whether to train: pure, over what has been folded. Every trigger gets an answer, also when it is no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evenkeel.contracts.declaration import ModelSpec
from evenkeel.libs.clock import DAY_US, format_us

Trigger = Literal["first_data", "drift", "decay", "schedule", "command"]
Reason = Literal[
    "accepted",
    "cooldown",
    "budget",
    "insufficient_data",
    "busy",
    "no_dataset",
    "superseded",
    "paused",
    "not_computable",
]


@dataclass(frozen=True, slots=True)
class Cut:
    """A version of the training table: rows whose label arrived before `cut_us`, but for those that have left."""

    uri: str
    version: int
    view_version: str
    rows: int
    cut_us: int
    span_us: int
    offsets: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Pause:
    """A person stopped the loop of a model. `since_us` is wall time."""

    by: str
    since_us: int
    reason: str

    def __str__(self) -> str:
        return f"paused by {self.by} since {format_us(self.since_us)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class History:
    """What has been decided for a model so far, as far as a decision looks at it. Times are event time."""

    accepted_us: Sequence[int]
    """Of the decisions to train that are less than a day old, and of the last one, in order."""
    busy_run: str | None
    """The run that is not finished."""
    champion_epoch: int
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class TriggerEvent:
    """One trigger. `epoch` is the champion's that the signal was about; 0 if it was about none."""

    trigger: Trigger
    time_us: int
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    retrain: bool
    reason: Reason
    detail: str
    cut: Cut | None = None


def decide(asked: TriggerEvent, spec: ModelSpec, view_version: str, cuts: Sequence[Cut], history: History) -> Answer:
    """Train on the last cut at or before the trigger's event time, unless a rule of the policy says no.

    A command overrules cooldown, budget and pause, but not a running job nor missing data. A pause is the answer to
    every other trigger, whatever else would have spoken against it.
    """
    policy = spec.retraining
    last_us = history.accepted_us[-1] if history.accepted_us else None
    if history.pause is not None and asked.trigger != "command":
        return Answer(False, "paused", str(history.pause))
    if history.busy_run is not None:
        return Answer(False, "busy", f"run {history.busy_run} is not finished")
    if asked.epoch and asked.epoch != history.champion_epoch:
        return Answer(
            False, "superseded", f"the signal is about epoch {asked.epoch}, epoch {history.champion_epoch} answers now"
        )
    if asked.trigger != "command":
        if last_us is not None and asked.time_us - last_us < policy.cooldown_us:
            until = format_us(last_us + policy.cooldown_us)
            return Answer(
                False, "cooldown", f"the last run was decided at {format_us(last_us)}; not again before {until}"
            )
        recent = sum(asked.time_us - time_us < DAY_US for time_us in history.accepted_us)
        if recent >= policy.budget_per_day:
            return Answer(False, "budget", f"{recent} runs within a day, the budget is {policy.budget_per_day}")
    usable = [cut for cut in cuts if cut.cut_us <= asked.time_us and cut.view_version == view_version]
    if not usable:
        return Answer(False, "no_dataset", "no training table of this view was committed before the trigger")
    cut = max(usable, key=lambda cut: (cut.cut_us, cut.version))
    if not is_enough(cut, spec):
        return Answer(False, "insufficient_data", _needs(cut, spec), cut)
    return Answer(True, "accepted", f"{cut.rows:,} rows with labels before {format_us(cut.cut_us)}", cut)


def is_enough(cut: Cut, spec: ModelSpec) -> bool:
    """Whether a cut has the rows and the span that a first fit waits for."""
    first = spec.retraining.first_after
    return cut.rows >= first.rows and cut.span_us >= first.span_us


def is_due(time_us: int, spec: ModelSpec, history: History) -> bool:
    """Whether the schedule asks for a run at this event time."""
    if "schedule" not in spec.retraining.triggers or not history.accepted_us:
        return False
    return time_us - history.accepted_us[-1] >= spec.retraining.schedule_us


def _needs(cut: Cut, spec: ModelSpec) -> str:
    first = spec.retraining.first_after
    return (
        f"{cut.rows:,} rows over {cut.span_us / DAY_US:.1f} days; "
        f"the policy wants {first.rows:,} over {first.span_us / DAY_US:.1f}"
    )
