"""Records as a consumer reads them: what services said, at offsets of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from evenkeel.contracts.envelope import IN_BAND_TYPES, Headers, parse_us
from evenkeel.contracts.payload import Payload
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.service import Cause, Derived, Output
from evenkeel.libs.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """See evenkeel.contracts.envelope.Record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int = 0


@dataclass
class Topics:
    """What was written to topics, by whoever; numbers it as a broker would."""

    records: list[ReadRecord] = field(default_factory=list)
    """In the order in which they were written."""
    _ends: dict[tuple[str, int], int] = field(default_factory=dict)
    _builders: dict[tuple[str, str], OutputBuilder] = field(default_factory=dict)

    def say(
        self,
        producer: str,
        outputs: Iterable[Output],
        *,
        store: str = "log",
        partition: int | None = None,
        recorded: str = "2013-01-01T00:00:00Z",
    ) -> list[ReadRecord]:
        """Written by a service with the runtime's own builder, so ids, causes and envelopes are as it would say them.

        `partition`: put events there, rather than where their key belongs.
        """
        builder = self._builders.get((producer, store))
        if builder is None:
            trace = Tracing(producer, "test").batch()
            builder = self._builders[producer, store] = OutputBuilder(producer, store, {}, parse_us(recorded), trace)
        builder.add(outputs, "test")
        said = [
            one
            if partition is None or dict(one.headers)["ce_type"] in IN_BAND_TYPES
            else one._replace(partition=partition)
            for one in builder.finish()
        ]
        builder.records.clear()
        return self.write(said)

    def fact(
        self, producer: str, payload: Payload, time: str, *, cause: str | None = None, store: str = "log"
    ) -> list[ReadRecord]:
        """One payload that follows from a cause of that time."""
        cause_id = cause or f"cause-{len(self.records)}"
        return self.say(producer, [Derived(payload, Cause(cause_id, parse_us(time), cause_id))], store=store)

    def write(self, records: Sequence[OutgoingRecord | ReadRecord]) -> list[ReadRecord]:
        """Append records as they are."""
        written = []
        for one in records:
            offset = self._ends.get((one.topic, one.partition), 0)
            self._ends[one.topic, one.partition] = offset + 1
            written.append(ReadRecord(one.topic, one.partition, offset, one.key, one.value, one.headers))
        self.records += written
        return written

    def forget(self, topic: str, partition: int, count: int) -> None:
        """The last so many records of a partition were not written after all."""
        self._ends[topic, partition] -= count
