"""What trainer answers: decisions and runs to look at, a run to ask for, the loop to pause."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from evenkeel.contracts.http.messages import Answer, Detail, EventTime, ModelName, Problem, Request, RunId, WallTime
from evenkeel.contracts.http.route import Route
from evenkeel.contracts.payload import Count, Word


class Run(Answer):
    """A job: one training that was decided."""

    run_id: RunId
    trigger: Word
    """Why: `first_data`, `drift`, `decay`, `schedule` or `command`."""
    decided: EventTime
    """Event time of the decision."""
    state: Word
    """`queued`, `running`, `completed`, `refused` or `failed`."""
    attempt: Count
    """How often it was begun."""
    detail: str
    """What came of it, or why not; empty while it is open."""


class Runs(Answer):
    """A model's runs."""

    model: ModelName
    runs: list[Run]
    """In the order in which they were decided."""


class Cut(Answer):
    """A version of a training table that a run may read."""

    version: Count
    """The Delta table's version."""
    rows: Count
    """Rows in this version."""
    label_cut: EventTime
    """Labels that arrived before are in, later ones are not."""
    uri: str
    """The Delta table, below the data folder."""


class Cuts(Answer):
    """The dataset versions that trainer knows of."""

    model: ModelName
    datasets: list[Cut]
    """The oldest first."""


class TrainDecision(Answer):
    """The decision on a request for a run; it may be no."""

    retrain: bool
    """Whether there will be a run."""
    reason: Word
    """`accepted`, or what speaks against it: `busy`, `no_dataset`, `insufficient_data`, …"""
    detail: Detail
    run_id: str | None = None
    """The run's id, if there is one."""


class Loop(Answer):
    """Whether a model's loop runs, and the job that is not finished."""

    model: ModelName
    state: Word
    """`running` or `paused`."""
    by: str | None = None
    """Who paused it."""
    since: WallTime | None = None
    """When it was paused."""
    reason: str | None = None
    """Why it was paused."""
    job: Run | None = None
    """The job that waits or runs."""


class Loops(Answer):
    """Every model's loop."""

    loops: list[Loop]
    """One entry a model."""


class LoopRequest(Request):
    """Who pauses or resumes a loop, and why; both are published."""

    by: str = Field(min_length=1, max_length=200)
    """Who asks for it."""
    reason: str = Field(min_length=1, max_length=1000)
    """Why."""


class LoopChange(Answer):
    """How the loop stands now."""

    model: ModelName
    paused: bool
    """Whether it is paused."""
    changed: bool
    """Whether it stood otherwise before."""


RUNS: Final = Route(
    name="runs",
    method="GET",
    path="/v1/models/{model}/runs",
    role="scientist",
    summary="A model's training runs",
    description="Every run that was decided, with what came of it.",
    answer=Runs,
)
CUTS: Final = Route(
    name="cuts",
    method="GET",
    path="/v1/models/{model}/datasets",
    role="scientist",
    summary="Dataset versions that runs may read",
    description="The versions of the training table that trainer has heard of, oldest first.",
    answer=Cuts,
)
TRAIN: Final = Route(
    name="train",
    method="POST",
    path="/v1/models/{model}/train",
    role="scientist",
    summary="Ask for a training run",
    description="A command overrules cooldown, budget and pause, but not a running job nor missing data; the answer says so.",
    answer=TrainDecision,
)
LOOPS: Final = Route(
    name="loops",
    method="GET",
    path="/v1/loops",
    role="operator",
    summary="Every model's loop",
    description="Whether it is paused, by whom and why, and the job that is not finished.",
    answer=Loops,
)
PAUSE: Final = Route(
    name="pause",
    method="POST",
    path="/v1/models/{model}/pause",
    role="operator",
    summary="Pause a model's loop",
    description="Every trigger is answered with no until it is resumed. Champions go on serving, and commands still train. "
    "409 if it is paused already.",
    answer=LoopChange,
    body=LoopRequest,
    answers={409: Problem},
)
RESUME: Final = Route(
    name="resume",
    method="POST",
    path="/v1/models/{model}/resume",
    role="operator",
    summary="Resume a model's loop",
    description="Triggers count again, from the next one on. Resuming a loop that runs changes nothing.",
    answer=LoopChange,
    body=LoopRequest,
    is_repeatable=True,
)

ROUTES: Final[tuple[Route[Any], ...]] = (RUNS, CUTS, TRAIN, LOOPS, PAUSE, RESUME)
