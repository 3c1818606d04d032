"""Former majors of topics that are still read beside the current ones, so that two releases may run side by side.

A fact that breaks its schema gets a new payload class and a new topic with the next major. Here stands how an event of the
former one reads as one of today's; consumers take both, each from its own topic, and their handlers see only today's. A row
goes when no topic of its major is kept anywhere any more. Topics that are merged in event time cannot have one: the merge
would wait for watermarks on both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from evenkeel.contracts.payload import Fact, Payload
from evenkeel.contracts.topics import BY_NAME, topics_carrying


@dataclass(frozen=True, slots=True)
class Superseded:
    """One former major. Its topic is read where it exists and made nowhere."""

    name: str
    payload: type[Payload]
    current: str
    """Name of the topic that took its place."""
    upcast: Callable[[Any], Fact]
    """Today's payload of a former one. It must fit every payload of that class: it is not asked whether it does."""
    partitions: int = 1


SUPERSEDED: Final[tuple[Superseded, ...]] = ()


def former_majors(current: str) -> tuple[Superseded, ...]:
    """What is to be read as events of this topic, besides its own."""
    return tuple(former for former in SUPERSEDED if former.current == current)


def read_as_today(topic: str, value: bytes) -> Fact | None:
    """What a record of a topic says, as today's payload; None: neither a topic of the map nor a former major of one.

    Raises ValidationError if it is not that topic's payload.
    """
    row = BY_NAME.get(topic)
    if row is not None:
        return row.payload.model_validate_json(value)
    for former in SUPERSEDED:
        if former.name == topic:
            return former.upcast(former.payload.model_validate_json(value))
    return None


def topics_read_as(payload: type[Payload]) -> tuple[str, ...]:
    """The topics whose records read as this payload: those of the map, and former majors of them."""
    current = [topic.name for topic in topics_carrying(payload)]
    return (*current, *(former.name for name in current for former in former_majors(name)))
