"""The views of a model, merged: each has a stream of its own, and they take turns as one input."""

from __future__ import annotations

from evenkeel.contracts import ids
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.runtime.merge import EventTimeMerge
from tests.makers import vector_computed


def vector(view: str, number: int, time_us: int) -> Event[VectorComputed]:
    data = vector_computed(event_id=f"e{number}", view_version=view, values=[float(number)])
    event_id = ids.vector_id(f"accepted-{number}", "m", view)
    attributes = {"ce_stream": ids.view_stream("m", view).encode()}
    return Event(data, event_id, time_us, "feature.vector-computed.v1", 0, number, attributes)


def test_a_merge_waits_for_the_view_that_follows_and_loses_nothing_of_the_one_before() -> None:
    """A model declared anew: its old view says nothing more, what it said last is released by the new one's watermark."""
    topics = {VectorComputed: "feature.vector-computed.v1", PredictionMade: "serving.prediction-made.v1"}
    merge = EventTimeMerge(dict.fromkeys(topics.values(), 1), topics)
    group = frozenset((payload, "m") for payload in topics)
    merge.regroup([group])
    for number, (view, time_us) in enumerate((("v1", 10), ("v1", 20), ("v2", 30), ("v2", 40))):
        assert merge.add(vector(view, number, time_us))
    merge.observe("serving.prediction-made.v1", 0, ids.view_stream("m", "v1"), 100)
    merge.observe("feature.vector-computed.v1", 0, ids.view_stream("m", "v1"), 15)
    released = [event.data.event_id for _, _, events in merge.release() for event in events]
    assert released == ["e0"]
    merge.observe("feature.vector-computed.v1", 0, ids.view_stream("m", "v2"), 35)
    released = [event.data.event_id for _, _, events in merge.release() for event in events]
    assert released == ["e1", "e2"]
    assert merge.held == 1
