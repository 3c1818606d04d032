"""What the runtime of every service publishes."""

from __future__ import annotations

from evenkeel.contracts.payload import Base64, Count, Payload


class RecordDeadLettered(Payload):
    """A record of one of our own topics that a service could not use, with its original bytes."""

    service: str
    reason: str
    topic: str
    partition: Count
    offset: Count
    key: Base64 | None
    value: Base64 | None
    headers: list[tuple[str, Base64]]
