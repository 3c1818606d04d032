"""A request to `/v1/models/{model}/predict` and its answer: features by name, several instances, or an event whose
features come from its own fields and the online view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from evenkeel.contracts.http.serving import PREDICTION_KINDS, PredictRequest
from evenkeel.libs.fields import shown
from evenkeel.services.serving.domain.champions import Champion
from evenkeel.services.serving.domain.dataplane import Answer, Question
from evenkeel.services.serving.domain.online_view import OnlineViews
from evenkeel.services.serving.domain.requests import Row, at_most, json_object, moment_us, record_id, refused

_KEYS: Final = frozenset(PredictRequest.model_fields)


def parse_predict(body: bytes, champion: Champion, views: OnlineViews, max_rows: int) -> tuple[Question, bool]:
    """The rows that a request asks about, and whether it sent them as instances; raises Refused naming field and fix."""
    request = json_object(body)
    for key in request:
        if key not in _KEYS:
            fix = "Send one of features, instances or event, and optionally event_id and event_time."
            raise refused(422, f"There is no {shown(key)} in a request.", fix, str(key)[:80])
    kinds = [kind for kind in PREDICTION_KINDS if kind in request]
    if len(kinds) != 1:
        given = " and ".join(kinds) or "nothing to predict for"
        raise refused(422, f"The request has {given}.", "Send exactly one of features, instances or event.", "features")
    time_us = None if "event_time" not in request else moment_us(request["event_time"], "event_time")
    event_id = None if "event_id" not in request else record_id(request["event_id"], "event_id")
    (kind,) = kinds
    if kind == "event":
        return _completed(champion, request["event"], event_id, time_us, views), False
    if kind == "features":
        rows = [champion.rows.row(request["features"], "features")]
    else:
        rows = _instances(champion, request["instances"], event_id, max_rows)
    return Question(rows, np.array(rows, np.float32), event_id, time_us), kind == "instances"


def _instances(champion: Champion, given: object, event_id: str | None, max_rows: int) -> list[Row]:
    if type(given) is not list or not given:
        fix = "Send instances as a list of one or more objects of feature values."
        raise refused(422, f"instances is {shown(given)}.", fix, "instances")
    at_most(max_rows, len(given), "instances")
    if event_id is not None:
        fix = "Leave event_id out, or send features."
        raise refused(422, "One event_id cannot be the id of several instances.", fix, "event_id")
    return [champion.rows.row(one, f"instances[{number}]") for number, one in enumerate(given)]


def _completed(
    champion: Champion, event: object, event_id: str | None, time_us: int | None, views: OnlineViews
) -> Question:
    """The features of an event, from its own fields and the online view."""
    reader = champion.events
    fields = reader.fields(event)
    if event_id is None and fields.get(reader.id_field) is not None:
        event_id = record_id(fields[reader.id_field], f"event.{reader.id_field}")
    if time_us is None and fields.get(reader.time_field) is not None:
        time_us = moment_us(fields[reader.time_field], f"event.{reader.time_field}")
    completed = views.complete((champion.model, champion.view_version), fields, time_us)
    if completed is None:
        raise refused(503, f"The online view of {champion.model} is not here yet.", "Try again, or send features.")
    rows: list[Row] = [[None if value != value else value for value in completed.vector]]
    at_us = completed.at_us if time_us is None else time_us
    return Question(rows, np.array(rows, np.float32), event_id, at_us, completed.position)


def written_predict(
    champion: Champion, answers: Sequence[Answer], ids: Sequence[tuple[str, str]], *, is_many: bool
) -> bytes:
    """The body of the answer. `ids`: each row's prediction id and event id."""
    head: dict[str, Any] = {"model": champion.model, "version": champion.version, "epoch": champion.epoch}
    predictions = [
        {"prediction_id": prediction_id, "event_id": event_id, "score": answered.score, "decision": answered.decision}
        for (prediction_id, event_id), answered in zip(ids, answers, strict=True)
    ]
    if is_many:
        head["predictions"] = predictions
    else:
        head.update(predictions[0])
    return orjson.dumps(head)
