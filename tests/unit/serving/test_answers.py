"""The hot paths write their answers by hand: they are what the contract says, and what it shows is what they read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel

from evenkeel.contracts.http import serving
from evenkeel.contracts.http.openapi import document_path, example_of
from evenkeel.contracts.http.route import JSON, Route
from evenkeel.services.serving.domain.champions import Champion
from evenkeel.services.serving.domain.dataplane import Answer
from evenkeel.services.serving.domain.online_view import OnlineViews
from evenkeel.services.serving.domain.predict import parse_predict, written_predict
from evenkeel.services.serving.domain.requests import RowReader
from evenkeel.services.serving.domain.tensors import parse_infer, written_infer
from tests.unit.serving.test_champions import champion

DOCUMENT = json.loads(document_path("serving").read_text())
NAMES = ("hour", "distance")
ANSWERS = [Answer(0.25, False), Answer(0.75, True)]
IDS = [("p-1", "e-1"), ("p-2", "e-2")]


def that_decides(threshold: float | None = 0.5) -> Champion:
    return replace(champion(3, 2), threshold=threshold, rows=RowReader(NAMES, {}))


def read_as(model: type[BaseModel], route: Route[Any], content: bytes) -> Any:
    """The answer as the client reads it. It has all that was written, and fits the published document."""
    answer = model.model_validate_json(content)
    written = json.loads(content)
    assert json.loads(answer.model_dump_json(exclude_unset=True)) == written
    schema = DOCUMENT["paths"][route.path]["post"]["responses"]["200"]["content"][JSON]["schema"]
    jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]}).validate(written)
    return answer


def test_an_answer_to_one_row() -> None:
    content = written_predict(that_decides(), ANSWERS[:1], IDS[:1], is_many=False)
    answer = read_as(serving.Prediction, serving.PREDICT, content)
    assert (answer.prediction_id, answer.event_id, answer.score, answer.decision) == ("p-1", "e-1", 0.25, False)
    assert (answer.model, answer.version, answer.epoch) == ("m", 2, 3)


def test_an_answer_to_instances() -> None:
    answer = read_as(serving.Predictions, serving.PREDICT, written_predict(that_decides(), ANSWERS, IDS, is_many=True))
    assert [(one.prediction_id, one.score, one.decision) for one in answer.predictions] == [
        ("p-1", 0.25, False),
        ("p-2", 0.75, True),
    ]


def test_an_answer_of_a_model_that_decides_nothing() -> None:
    content = written_predict(that_decides(None), [Answer(41.5, None)], IDS[:1], is_many=False)
    assert read_as(serving.Prediction, serving.PREDICT, content).decision is None


@pytest.mark.parametrize("many", [True, False])
def test_the_two_forms_are_told_apart(many: bool) -> None:
    answers, ids = (ANSWERS, IDS) if many else (ANSWERS[:1], IDS[:1])
    found = serving.PredictAnswer.model_validate_json(written_predict(that_decides(), answers, ids, is_many=many)).root
    assert type(found) is (serving.Predictions if many else serving.Prediction)


@pytest.mark.parametrize("route", [serving.INFER, serving.INFER_VERSION], ids=lambda route: route.name)
@pytest.mark.parametrize("threshold", [0.5, None])
@pytest.mark.parametrize("binary", [(), ("score",), ("score", "decision", "prediction_id")], ids=len)
def test_an_answer_of_the_protocol(route: Route[Any], threshold: float | None, binary: tuple[str, ...]) -> None:
    asked = {
        "id": "r-1",
        "inputs": [{"name": "features", "shape": [2, 2], "datatype": "FP64", "data": [[1, 2], [3, 4]]}],
        "outputs": [
            {"name": name, "parameters": {"binary_data": name in binary}}
            for name in ("score", "decision", "prediction_id")
        ],
    }
    serving.InferRequest.model_validate(asked)
    request = parse_infer(asked, memoryview(b""), NAMES, {name: n for n, name in enumerate(NAMES)})
    content, json_size = written_infer(that_decides(threshold), request, ANSWERS, IDS)
    answer = read_as(serving.InferAnswer, route, content[:json_size])
    assert (answer.model_name, answer.model_version, answer.id, answer.parameters.epoch) == ("m", "2", "r-1", 3)
    values = {"score": [0.25, 0.75], "decision": [False, True], "prediction_id": ["p-1", "p-2"]}
    if threshold is None:
        del values["decision"]
    assert {output.name: output.data for output in answer.outputs} == {
        name: None if name in binary else found for name, found in values.items()
    }


def test_what_the_contract_shows_is_what_is_read() -> None:
    body = example_of("serving", serving.INFER)["body"]
    request = parse_infer(body, memoryview(b""), NAMES, {name: n for n, name in enumerate(NAMES)})
    assert (request.id, request.rows.tolist()) == ("42", [[18.0, 1400.0]])
    content = json.dumps(example_of("serving", serving.PREDICT)["body"]).encode()
    question, is_many = parse_predict(content, that_decides(), OnlineViews(), 10)
    assert (question.values, is_many) == ([[18.0, 1400.0]], False)
