"""The online view as serving's transactions keep it, without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts.feature import ViewUpdated
from evenkeel.contracts.ids import view_stream
from evenkeel.contracts.topics import topic_of
from evenkeel.libs.features import FeatureState, compile_plan
from evenkeel.libs.service import Cause, Derived, Watermark
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.service import service
from evenkeel.services.serving.settings import ServingSettings
from tests.feature_log import HOUR_US, START_US, Log
from tests.harness import Harness

FIELDS = {"origin": "A", "carrier": "x", "load": 1.0}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Harness[ServingContext]]:
    serving: Harness[ServingContext] = Harness(service, tmp_path, ServingSettings())
    yield serving
    serving.close()


def test_a_request_at_rest_is_evaluated_where_the_view_has_come_to(serving: Harness[ServingContext]) -> None:
    """Slots first, and as late as their last record; then a clock record alone, which empties the window."""
    log = Log()
    log.declare([], ["load"])
    plan = compile_plan(log.declaration.models["load"], log.declaration.streams)
    key, stream = ("load", plan.view_version), view_stream("load", plan.view_version)
    live = FeatureState(plan)
    live.fold("flights", START_US, "f1", FIELDS)
    slots = [
        Derived(
            ViewUpdated(view="load", view_version=plan.view_version, slot=slot, tile=list(tile)),
            Cause("c", START_US, "c"),
            stream=stream,
        )
        for slot, tile in live.take_changes(START_US)
    ]
    serving.consume(log.records)
    log.records.clear()
    serving.consume(log.say("feature", slots))

    def asked() -> Any:
        completed = serving.context.views.complete(key, FIELDS, None)
        assert completed is not None
        return completed

    assert (asked().at_us, asked().vector) == (START_US, live.vector(FIELDS, START_US))
    assert asked().vector[0] == 1.0, "the sum of the last two hours"
    end_us = START_US + 3 * HOUR_US
    clocks = log.say("feature", [Watermark(ViewUpdated, stream, end_us)])
    serving.consume(clocks)
    ends = {str(n): 0 for n in range(topic_of(ViewUpdated, "feature").partitions)}
    ends |= {str(record.partition): record.offset + 1 for record in log.records if record.topic == clocks[0].topic}
    for restarted in (False, True):
        if restarted:
            serving.restart()
        assert (asked().at_us, repr(asked().vector)) == (end_us, repr(live.vector(FIELDS, end_us)))
        assert repr(asked().vector[0]) != "1.0"
        assert asked().position == ends
