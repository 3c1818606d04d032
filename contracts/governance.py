"""What governance publishes."""

from __future__ import annotations

from evenkeel.contracts.payload import Base64, Count, Payload


class LeafOrder(Payload):
    """In which order records of several partitions became leaves: each run is (number in `topics`, partition, records)."""

    topics: list[str]
    runs: list[tuple[Count, Count, Count]]


class CheckpointSigned(Payload):
    """A signed promise about the log's first `size` leaves (C2SP tlog-checkpoint).

    `order` is that of the leaves since the checkpoint before. With it the same log can be made again from the topics.
    """

    size: Count
    root: Base64
    note: str
    order: LeafOrder | None = None


class SubjectErased(Payload):
    """Reserved: a data subject's key was destroyed."""

    stream: str
    subject: str
