"""Stream scoring over a list of records: identities are passed on, in band and out of it, and what is unusable is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evenkeel.contracts.envelope import Event, attributes_of
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.ids import prediction_id
from evenkeel.contracts.runtime import SourcesSealed
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.runtime.stateless import StatelessStep
from evenkeel.libs.service import Cause, Context, Derived, Seal, Stateless, Watermark
from evenkeel.libs.telemetry.tracing import Tracing
from tests.harness import ManualClock
from tests.makers import prediction_made, vector_computed
from tests.records import ReadRecord, Topics

LOST = "0" * 32
VECTORS, PREDICTIONS = "feature.vector-computed.v1", "serving.prediction-made.v1"


def on_vectors(events: Sequence[Event[VectorComputed]], ctx: Context) -> list[PredictionMade | None]:
    """A value below zero is nobody's."""
    return [
        None
        if (event.data.values[0] or 0.0) < 0
        else prediction_made(model=event.data.model, event_id=event.data.event_id)
        for event in events
    ]


def step() -> StatelessStep[Context]:
    handler: Stateless[Context] = Stateless(VectorComputed, PredictionMade, on_vectors, prediction_id)
    return StatelessStep(handler, "serving", Context(), ManualClock(), Tracing("serving", "test"))


def vector(number: int, value: float = 1.0) -> Derived:
    cause = Cause(f"c{number}", number, "c")
    return Derived(vector_computed(event_id=f"e{number}", values=[value]), cause, id=f"v{number}", stream="m")


def told(topics: Topics, *outputs: Any, store: str = "log") -> list[ReadRecord]:
    return topics.say("feature", outputs, store=store)


def test_an_output_has_its_inputs_identity_and_partition() -> None:
    topics = Topics()
    records = told(topics, *(vector(n) for n in range(12)))
    scored = step().score(records)
    assert scored.dead == []
    for given, made in zip(records, scored.outgoing, strict=True):
        before, after = attributes_of(given.headers), attributes_of(made.headers)
        assert (made.topic, made.partition, made.key) == (PREDICTIONS, given.partition, given.key)
        assert (after["ce_sequence"], after["ce_shard"]) == (before["ce_sequence"], before["ce_shard"])
        assert (before["ce_source"], after["ce_source"]) == (b"/evenkeel/feature/log", b"/evenkeel/serving/log")
        assert after["ce_id"].decode() == prediction_id(before["ce_id"].decode())
    assert len({one.partition for one in records}) > 1
    again = step().score(records)
    assert [one.value for one in again.outgoing] == [one.value for one in scored.outgoing]


def test_what_is_not_answered_leaves_nothing_and_moves_nobody_else() -> None:
    scored = step().score(told(Topics(), vector(1), vector(2, -1.0), vector(3)))
    assert [attributes_of(one.headers)["ce_id"].decode() for one in scored.outgoing] == [
        prediction_id("v1"),
        prediction_id("v3"),
    ]


def test_a_watermark_stays_where_it_stood() -> None:
    topics = Topics()
    (before,) = told(topics, vector(1))
    mark = next(one for one in told(topics, Watermark(VectorComputed, "m", 5)) if one.partition == before.partition)
    behind = replace(before, offset=9)
    outgoing = step().score([before, mark, behind]).outgoing
    assert [one.partition for one in outgoing] == [before.partition] * 3
    assert (outgoing[1].key, outgoing[1].value) == (mark.key, mark.value)
    pairs = zip(mark.headers, outgoing[1].headers, strict=True)
    assert {name for (name, one), (_, other) in pairs if one != other} == {"ce_id"}, (
        "another record, otherwise the same"
    )


def test_a_seal_is_passed_on_for_what_the_sealed_store_became_here() -> None:
    seal = next(one for one in told(Topics(), Seal([LOST]), store="1" * 32) if one.topic == VECTORS)
    (outgoing,) = step().score([seal]).outgoing
    sealed = SourcesSealed.model_validate_json(outgoing.value or b"")
    assert outgoing.key == seal.key
    assert set(sealed.sources) == {f"/evenkeel/feature/{LOST}", f"/evenkeel/serving/{LOST}"}


def test_what_cannot_be_used_is_named_and_the_others_go_on() -> None:
    topics = Topics()
    good, bad = told(topics, vector(1), vector(2))
    scored = step().score([replace(bad, value=b"{}"), good, replace(bad, headers=())])
    assert [attributes_of(one.headers)["ce_id"] for one in scored.outgoing] == [prediction_id("v1").encode()]
    assert [reason.split(":")[0] for _, reason in scored.dead] == ["payload", "envelope"]
