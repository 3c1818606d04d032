"""What the runtime of every service publishes."""

from __future__ import annotations

from evenkeel.contracts.ids import record_place
from evenkeel.contracts.payload import Base64, Count, Fact


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
