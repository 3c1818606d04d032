"""What the runtime asks of a broker. Small, so that the client behind it can be exchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from evenkeel.contracts.envelope import Headers, Record
from evenkeel.contracts.topics import Topic

TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How long the broker may collect records before it answers a fetch: fewer, fuller batches against latency."""

    min_bytes: int = 1
    max_wait_ms: int = 100


PROMPT: Final = FetchSettings()
LEISURELY: Final = FetchSettings(min_bytes=262_144, max_wait_ms=200)
"""For services at the end of the data plane, whose batches nobody waits for."""
STREAMING: Final = FetchSettings(min_bytes=65_536, max_wait_ms=60)
"""For the data plane: a batch costs as much as a hundred records, and sixty milliseconds are no delay for a window."""


class OutgoingRecord(NamedTuple):
    """A record whose partition is already fixed: a repeat must go where the first one went."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Bus(Protocol):
    """All calls come from the event loop. Faults of the broker are Retry, whatever the client calls them."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Ends within seconds, also when the broker does not answer."""

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Topics that exist, with their partition counts."""

    async def create_topics(self, topics: Iterable[Topic]) -> None:
        """Create the ones that are missing, with the map's settings."""

    async def create_raw_topic(self, name: str, partitions: int) -> None:
        """A producers' topic: uncompressed, so that a small batch cannot inflate in the consumer."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these, each from its position."""

    def pause(self, partitions: Iterable[TopicPartition]) -> None: ...

    def resume(self, partitions: Iterable[TopicPartition]) -> None: ...

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, Sequence[Record]]: ...

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]: ...

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]: ...

    def read_between(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> AsyncIterator[Sequence[Record]]:
        """What lies from the first offset up to the second of each, beside what `assign` reads."""

    def ends(self) -> dict[TopicPartition, int]:
        """The end of each assigned partition, as the last fetch told it."""

    async def publish(self, records: Sequence[OutgoingRecord]) -> None:
        """Returns when every record is acknowledged by all in-sync replicas, in order per partition; else raises Retry."""

    async def commit(self, positions: Mapping[TopicPartition, int]) -> bool:
        """For lag tools only; a failure is not an error. Whether the broker has answered."""

    def group_reader(self, topic: str) -> GroupReader:
        """A reader that shares the topic's partitions with the other replicas of this service."""


class GroupReader(Protocol):
    """Reads a topic whose partitions replicas share; positions are the group's, in Kafka."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, Sequence[Record]]: ...

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """A position that was taken away meanwhile is not committed; its records come again elsewhere."""

    async def rewind(self) -> None:
        """Go back to what is committed."""
