"""Steps 2 and 4 of the consume loop: a batch decoded, without repeats, and sorted by what handles it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from evenkeel.contracts.envelope import Event, Record
from evenkeel.contracts.runtime import ClockAdvanced, SourcesSealed
from evenkeel.libs.errors import Undecodable
from evenkeel.libs.runtime.attempt import Attempt
from evenkeel.libs.runtime.decoding import Decoder, open_envelope
from evenkeel.libs.runtime.held import Where
from evenkeel.libs.runtime.repeats import Repeats
from evenkeel.libs.runtime.routing import Routes
from evenkeel.libs.store.protocol import MarkKey, TopicPartition


@dataclass
class ReadBatch:
    """One batch as read; belongs to its transaction."""

    records: Sequence[Record]
    control: list[tuple[int, Event[Any]]] = field(default_factory=list)
    """Facts with the broker's time, in the order in which they are handled."""
    data: dict[str, list[Event[Any]]] = field(default_factory=dict)
    """Everything else that is decoded, by topic."""
    clocks: list[Event[ClockAdvanced]] = field(default_factory=list)
    raw: list[Record] = field(default_factory=list)
    """What is not decoded."""
    marks: dict[MarkKey, int] = field(default_factory=dict)
    moves: dict[TopicPartition, tuple[int | None, int]] = field(default_factory=dict)
    dead: list[tuple[Record, str]] = field(default_factory=list)
    failures: list[bool] = field(default_factory=list)
    """Whether each record of our own topics could not be used."""
    consumed: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)

    @cached_property
    def by_place(self) -> dict[Where, Record]:
        """The records of the batch; made when the first one is asked for."""
        return {(record.topic, record.partition, record.offset): record for record in self.records}


class Intake:
    """Belongs to the writer thread."""

    def __init__(self, routes: Routes[Any], decoder: Decoder, repeats: Repeats) -> None:
        self._routes, self._decoder, self._repeats = routes, decoder, repeats

    def read(self, attempt: Attempt, positions: Mapping[TopicPartition, int]) -> ReadBatch:
        """`positions`: up to where each partition was read before."""
        batch = ReadBatch(attempt.records)
        routes, poison = self._routes, attempt.poison
        logs_all, knows = routes.logs_all, self._decoder.knows
        for record in attempt.records:
            topic = record.topic
            tp = (topic, record.partition)
            lo, hi = batch.moves.get(tp, (positions.get(tp), None))
            if record.offset < (hi if hi is not None else lo or 0):
                continue
            batch.moves[tp] = (lo, record.offset + 1)
            batch.consumed[topic] += 1
            if logs_all or not knows(topic):
                batch.raw.append(record)
                continue
            if poison and topic not in routes.merged:
                reason = poison.get((topic, record.partition, record.offset))
                if reason is not None:
                    batch.dead.append((record, reason))
                    continue
            try:
                self._take(record, batch)
                batch.failures.append(False)
            except Undecodable as error:
                batch.dead.append((record, str(error)))
                batch.failures.append(True)
        batch.control.sort(key=lambda item: (item[0], item[1].topic, item[1].partition, item[1].offset))
        return batch

    def _take(self, record: Record, batch: ReadBatch) -> None:
        topic = record.topic
        envelope = open_envelope(record)
        origin = envelope.origin
        if origin is not None and self._repeats.is_known(origin, topic, record.partition, batch.marks):
            batch.repeated[topic] += 1
            return
        event = self._decoder.decode(record, envelope)
        if isinstance(event.data, SourcesSealed):
            self._repeats.seal(event.data.sources, topic, record.partition, batch.marks)
        elif isinstance(event.data, ClockAdvanced) and topic in self._routes.merged:
            batch.clocks.append(event)
        else:
            current = self._routes.current(topic)
            if current in self._routes.each:
                batch.control.append((record.timestamp, event))
            else:
                batch.data.setdefault(current, []).append(event)
