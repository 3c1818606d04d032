"""What the runtime of every service publishes: dead letters, and what travels in band among the events of other topics.

In band means on the partition that it speaks of, and behind what it speaks of: a topic of its own could not promise that
nothing earlier follows. It is not about anything that happened, so it is no event: no handler of events is given it, nobody
counts it, and its key is its own, so that a compacted topic keeps one and a sink does not take it for a deletion.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from evenkeel.contracts.envelope import CLOCK_TYPE, FIRST_US, LAST_US, SEAL_TYPE, TYPE_PREFIX, parse_us
from evenkeel.contracts.ids import record_place
from evenkeel.contracts.payload import Base64, Count, Fact, Payload, Time


def _in_bounds(text: str) -> str:
    if not FIRST_US <= parse_us(text) <= LAST_US:
        raise ValueError(f"{text} is before 1800 or after 3100: nobody can calculate with it")
    return text


class ClockAdvanced(Payload):
    """Nothing of these streams with an earlier order follows on this partition.

    One record for all streams that moved in a transaction, behind everything else that the transaction says on the
    partition. On `feature.view-updated` it names every view: what lies before that time is in the slots.
    """

    watermarks: Annotated[dict[str, Annotated[Time, AfterValidator(_in_bounds)]], Field(min_length=1)]
    """By stream, as `ce_stream` names it."""

    def times_us(self) -> dict[str, int]:
        """By stream, in microseconds since the epoch."""
        return {stream: parse_us(text) for stream, text in self.watermarks.items()}


class SourcesSealed(Payload):
    """The first word of a store that was rebuilt: these sources have nothing more to say on this partition. What comes from
    them behind it is ignored."""

    sources: list[str]
    """`ce_source` of the stores whose place it takes."""


IN_BAND: Final[dict[str, type[Payload]]] = {
    CLOCK_TYPE.removeprefix(TYPE_PREFIX): ClockAdvanced,
    SEAL_TYPE.removeprefix(TYPE_PREFIX): SourcesSealed,
}
"""By the name of its schema, from which its `ce_type` follows as an event's does from its topic."""


class RecordDeadLettered(Fact):
    """A record of one of our own topics that a service could not use, with its original bytes."""

    what = "dead letter"

    service: str
    reason: str
    topic: str
    partition: Count
    offset: Count
    key: Base64 | None
    value: Base64 | None
    headers: list[tuple[str, Base64]]

    def sentence(self) -> str:
        place = record_place(self.topic, self.partition, self.offset)
        return f"{self.service} could not use the record {place}: {self.reason}"
