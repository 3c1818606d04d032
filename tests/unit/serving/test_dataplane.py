"""One champion, one answer: the same rows get the same scores and decisions from the stream, /v1 and /v2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from evenkeel.contracts.declaration import StreamSpec
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import VectorComputed
from evenkeel.libs.errors import Refused
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import Champion, Succession
from evenkeel.services.serving.domain.dataplane import Answer, Question, answer
from evenkeel.services.serving.domain.online_view import OnlineViews
from evenkeel.services.serving.domain.predict import parse_predict, written_predict
from evenkeel.services.serving.domain.requests import EventReader, RowReader
from evenkeel.services.serving.domain.tensors import parse_infer, written_infer
from evenkeel.services.serving.handlers import on_vectors
from tests.makers import vector_computed
from tests.unit.serving.test_champions import champion as bare

NAMES = ("a", "b")
VIEW = "5" * 64
STREAM = StreamSpec.model_validate(
    {"topic": "shop.orders", "id": "id", "time": "at", "fields": {"a": {"type": "number"}, "b": {"type": "number"}}}
)


def mean(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The score is the mean; a row with a missing value has none."""
    scores: NDArray[np.float64] = rows.astype(np.float64).mean(axis=1)
    return scores


def champion(threshold: float | None = 0.5) -> Champion:
    return replace(
        bare(7, version=3),
        view_version=VIEW,
        threshold=threshold,
        predict=mean,
        rows=RowReader(NAMES, {}),
        events=EventReader("s", STREAM, NAMES),
    )


def vector(
    values: Sequence[float | None], number: int = 0, view: str = VIEW, model: str = "m"
) -> Event[VectorComputed]:
    data = vector_computed(model=model, event_id=f"e{number}", view_version=view, values=list(values))
    return Event[Any](data, f"vector-{number}", 0, "feature.vector-computed.v1", 0, number, {})


@pytest.fixture
def ctx() -> ServingContext:
    ctx = ServingContext()
    ctx.settled.set()
    ctx.successions = {"m": Succession(champion())}
    return ctx


def unscored(ctx: ServingContext, reason: str) -> float:
    return float(ctx.metrics.unscored.labels(reason)._value.get())


@pytest.mark.parametrize("threshold", [0.5, None])
def test_the_same_rows_get_the_same_answer_whatever_they_come_by(ctx: ServingContext, threshold: float | None) -> None:
    asked, rows = champion(threshold), [[0.0, 1.0], [0.25, 0.5], [0.5, 0.5]]
    ctx.successions = {"m": Succession(asked)}
    stream = [(one.score, one.decision) for one in on_vectors([vector(row) for row in rows], ctx) if one is not None]

    body = orjson.dumps({"instances": [dict(zip(NAMES, row, strict=True)) for row in rows]})
    question, is_many = parse_predict(body, asked, OnlineViews(), 10)
    v1 = orjson.loads(written_predict(asked, answered(asked, question), ids(3), is_many=is_many))["predictions"]

    tensor = {"name": "x", "shape": [3, 2], "datatype": "FP64", "data": rows}
    request = parse_infer({"inputs": [tensor]}, memoryview(b""), asked.rows.names, asked.rows.index)
    content, _ = written_infer(asked, request, answered(asked, request.question()), ids(3))
    v2 = {output["name"]: output["data"] for output in orjson.loads(content)["outputs"]}

    expected = [(0.5, True), (0.375, False), (0.5, True)] if threshold else [(0.5, None), (0.375, None), (0.5, None)]
    assert stream == expected
    assert [(one["score"], one["decision"]) for one in v1] == expected
    assert v2["score"] == [score for score, _ in expected]
    assert v2.get("decision") == ([decision for _, decision in expected] if threshold else None)


def answered(asked: Champion, question: Question) -> list[Answer]:
    return [one for one in answer(asked, question.rows) if one is not None]


def ids(count: int) -> list[tuple[str, str]]:
    return [(f"p{number}", f"e{number}") for number in range(count)]


def test_a_row_without_a_finite_score_has_no_answer() -> None:
    rows = np.array([[1.0, math.nan], [1.0, 2.0]], np.float32)
    assert answer(champion(), rows) == [None, Answer(1.5, True)]


def test_a_vector_gets_a_prediction_that_names_what_was_scored_by_what(ctx: ServingContext) -> None:
    (made,) = on_vectors([vector([1.0, 0.0], number=4)], ctx)
    assert made is not None
    assert (made.version, made.epoch, made.package, made.role, made.origin) == (3, 7, "sha256:3", "champion", "stream")
    assert (made.event_id, made.vector_id, made.view_version, made.values) == ("e4", "vector-4", VIEW, None)


def test_vectors_that_nobody_can_score_are_counted_by_why(ctx: ServingContext) -> None:
    events = [
        vector([1.0, 1.0], 0),
        vector([1.0, None], 1),
        vector([1.0, 1.0], 2, view="6" * 64),
        vector([1.0], 3),
        vector([1.0, 1.0], 4, model="other"),
    ]
    made = on_vectors(events, ctx)
    assert [one is not None for one in made] == [True, False, False, False, False]
    assert [unscored(ctx, reason) for reason in ("not_finite", "view_version", "no_champion")] == [1, 2, 1]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({}, "nothing to predict for"),
        ({"features": {}, "instances": []}, "has features and instances"),
        ({"feature": {}}, "no 'feature' in a request"),
        ({"instances": []}, "instances is"),
        ({"instances": [{"a": 1, "b": 2}] * 3}, "has 3 rows"),
        ({"instances": [{"a": 1, "b": 2}], "event_id": "e"}, "several instances"),
        ({"features": {"a": 1}}, "'b' is missing"),
        ({"event": {"a": 1, "b": 2}}, "online view of m is not here yet"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(request_: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_predict(orjson.dumps(request_), champion(), OnlineViews(), 2)
    assert text in refusal.value.detail
    assert refusal.value.fix
