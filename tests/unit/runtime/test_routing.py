"""Which topic goes to which handler, for the declarations of all services."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evenkeel.contracts import superseded
from evenkeel.contracts.ingest import EventAccepted
from evenkeel.contracts.registry import StreamDeclared
from evenkeel.contracts.superseded import Superseded
from evenkeel.contracts.topics import SERVICES, Plane, consumed_by
from evenkeel.libs.errors import Stop
from evenkeel.libs.runtime.routing import Routes
from evenkeel.services.__main__ import service_named
from tests.unit.runtime.orders import EVENTS, STREAMS, orders_service


@pytest.mark.parametrize("name", SERVICES)
def test_every_topic_of_a_service_has_one_handler(name: str) -> None:
    routes: Routes[Any] = Routes(service_named(name))
    handled = [*routes.each, *routes.batch, *routes.merged]
    assert len(handled) == len(set(handled))
    taken = set(handled) | ({topic.name for topic in routes.decoded} if routes.logs_all else set())
    scored = {topic.name for topic in routes.decoded} - {topic.name for topic in routes.folded}
    assert taken | scored == {topic.name for topic in consumed_by(name)}
    facts = {topic.name for topic in consumed_by(name) if topic.plane is Plane.CONTROL}
    assert routes.control == (frozenset() if routes.logs_all else facts)


def former(current: str, payload: Any) -> Superseded:
    return Superseded(current.replace(".v1", ".v0"), payload, current, lambda old: old)


def test_a_former_major_of_a_fact_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read to its end before anything else, as the topic that took its place."""
    row = former(STREAMS, StreamDeclared)
    monkeypatch.setattr(superseded, "SUPERSEDED", (row,))
    routes = Routes(orders_service("sqlite", set()))
    assert row.name in routes.control
    assert (routes.current(row.name), routes.current(STREAMS)) == (STREAMS, STREAMS)


def test_what_is_merged_has_one_major(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superseded, "SUPERSEDED", (former(EVENTS, EventAccepted),))
    with pytest.raises(Stop, match="events merged or scored in order have one major"):
        Routes(orders_service("sqlite", set()))


def test_a_topic_that_no_handler_takes_is_read_all_the_same() -> None:
    """It is in the map, so its position counts; the topology test refuses such a declaration."""
    service = orders_service("sqlite", set())
    routes = Routes(replace(service, handlers=service.handlers[:1]))
    assert EVENTS in {topic.name for topic in routes.folded}
    assert routes.merge is None
