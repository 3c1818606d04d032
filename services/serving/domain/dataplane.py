"""The data plane: what a champion answers for rows of features. It is the same for the stream, /v1 and /v2, and knows
none of them: not where the rows come from, and not how an answer is written or recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evenkeel.contracts.serving import PredictionMade
from evenkeel.services.serving.domain.champions import Champion
from evenkeel.services.serving.domain.requests import Row


class Question(NamedTuple):
    """The rows that a client asks about."""

    values: Sequence[Row]
    """As they are recorded: None for missing."""
    rows: NDArray[np.float32]
    """The same, float32[n, k], NaN for missing."""
    event_id: str | None = None
    """The event that the one row is about, if the client names it."""
    time_us: int | None = None
    """Event time, if the client names it."""
    view_position: dict[str, int] | None = None
    """Where the online view stood that completed the row."""


class Answer(NamedTuple):
    """What a champion says about one row. `decision` is None for a model that decides nothing."""

    score: float
    decision: bool | None


def answer(champion: Champion, rows: NDArray[np.float32]) -> list[Answer | None]:
    """One answer for each of n rows, float32[n, k] in the order of the champion's schema, NaN for missing.

    None where the model has no finite score: such a row gets no prediction.
    """
    threshold = champion.threshold
    return [
        Answer(score, None if threshold is None else score >= threshold) if math.isfinite(score) else None
        for score in champion.predict(rows).tolist()
    ]


def prediction_made(
    champion: Champion,
    answered: Answer,
    *,
    origin: Literal["stream", "request"],
    stream: str,
    event_id: str,
    vector_id: str | None = None,
    values: Row | None = None,
    view_position: dict[str, int] | None = None,
) -> PredictionMade:
    """An answer as a fact. `vector_id`: the vector that was scored; `values`: the features that a client asked for."""
    return PredictionMade.checked(
        model=champion.model,
        stream=stream,
        event_id=event_id,
        version=champion.version,
        epoch=champion.epoch,
        package=champion.package,
        origin=origin,
        role="champion",
        score=answered.score,
        scores=None,
        decision=answered.decision,
        view_version=champion.view_version,
        vector_id=vector_id,
        values=values,
        view_position=view_position,
    )
