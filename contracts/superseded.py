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

from evenkeel.contracts.payload import Payload


@dataclass(frozen=True, slots=True)
class Superseded:
    """One former major. Its topic is read where it exists and made nowhere."""

    name: str
    payload: type[Payload]
    current: str
    """Name of the topic that took its place."""
    upcast: Callable[[Any], Payload]
    """Today's payload of a former one. It must fit every payload of that class: it is not asked whether it does."""
    partitions: int = 1


SUPERSEDED: Final[tuple[Superseded, ...]] = ()


def former_majors(current: str) -> tuple[Superseded, ...]:
    """What is to be read as events of this topic, besides its own."""
    return tuple(former for former in SUPERSEDED if former.current == current)
