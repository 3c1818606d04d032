"""What governance publishes."""

from __future__ import annotations

from contracts.payload import Base64, Count, Payload


class CheckpointSigned(Payload):
    """A signed promise about the log's first `size` leaves (C2SP tlog-checkpoint)."""

    size: Count
    root: Base64
    note: str


class SubjectErased(Payload):
    """Reserved: a data subject's key was destroyed."""

    stream: str
    subject: str
