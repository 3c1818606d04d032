"""Feature's store made again from its inputs, in the order in which they were read the first time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import ViewStarted
from evenkeel.contracts.topics import BY_NAME, Plane
from evenkeel.libs.bus.protocol import TopicPartition
from evenkeel.libs.service import Order, Output, Rebuild
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.handlers import view_updates


def on_rebuilt(ctx: FeatureContext) -> Iterable[Output]:
    """The whole online view: slots that changed while the store was rebuilt were not published."""
    ctx.change_whole_view()
    return view_updates(ctx)


def order(published: Sequence[Event[Any]]) -> Order:
    """As it was read: up to where a view started, then that declaration and what follows."""
    started = sorted((e.data for e in published if isinstance(e.data, ViewStarted)), key=lambda view: view.declaration)
    read: dict[TopicPartition, int] = {}
    runs: list[tuple[str, int, int]] = []
    for view in started:
        places = ((topic, int(n), end) for topic, ends in view.offsets.items() for n, end in ends.items())
        for topic, partition, end in sorted(places, key=lambda place: (BY_NAME[place[0]].plane is Plane.DATA, place)):
            count = end - read.get((topic, partition), 0)
            if count > 0:
                runs.append((topic, partition, count))
                read[topic, partition] = end
    return runs


REBUILD: Final = Rebuild(finished=on_rebuilt, order=order)
