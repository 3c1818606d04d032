"""What governance publishes."""

from __future__ import annotations

from evenkeel.contracts.payload import Base64, Count, Fact, Payload
from evenkeel.contracts.words import count


class LeafOrder(Payload):
    """In which order records of several partitions became leaves: each run is (number in `topics`, partition, records)."""

    topics: list[str]
    runs: list[tuple[Count, Count, Count]]


class CheckpointSigned(Fact):
    """A signed promise about the log's first `size` leaves (C2SP tlog-checkpoint).

    `order` is that of the leaves since the checkpoint before. With it the same log can be made again from the topics.
    """

    what = "checkpoint"

    size: Count
    root: Base64
    note: str
    order: LeafOrder | None = None

    def number(self, offset: int) -> int | None:
        return self.size

    def sentence(self) -> str:
        return f"a checkpoint over {count(self.size, 'leaf', 'leaves')} was signed, root {self.root[:12]}"


class SubjectErased(Fact):
    """Reserved: a data subject's key was destroyed."""

    what = "erasure"

    stream: str
    subject: str

    def number(self, offset: int) -> int | None:
        return None

    def sentence(self) -> str:
        return f"the key of subject {self.subject} of stream {self.stream} was destroyed"
