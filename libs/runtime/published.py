"""What a service has said on its own topics: what a rebuilt store need not say again, and whether a store knows all of it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from evenkeel.contracts.envelope import IN_BAND_TYPES, Envelope, Event, Origin, Record
from evenkeel.contracts.ids import record_place
from evenkeel.contracts.runtime import ClockAdvanced, SourcesSealed
from evenkeel.contracts.topics import BY_NAME, Plane, Topic, consumed_by, published_by, topic_of
from evenkeel.libs.bus.protocol import Bus, TopicPartition
from evenkeel.libs.errors import Stop, Undecodable
from evenkeel.libs.runtime.decoding import Decoder, open_envelope
from evenkeel.libs.runtime.outputs import source_of
from evenkeel.libs.service import Service, Stateless

log = structlog.get_logger(__name__)

TAIL_RECORDS: Final = 100
"""How many records at the end of each partition are looked at to see whether a store is as young as they are."""
_STORE_ID: Final = re.compile(r"[0-9a-f]{32}").fullmatch


@dataclass
class Found:
    """What stands on the service's own topics before its seals. See Published in outputs.py."""

    stores: set[str] = field(default_factory=set)
    events: list[Event[Any]] = field(default_factory=list)
    """Events of control topics; from `OwnTopics.before_seals` in the order in which they were said."""
    count: int = 0
    _orders: defaultdict[tuple[str, int, str], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """By place and id, of events that are not earlier than the place's watermark."""
    _watermarks: dict[tuple[str, int, str], int] = field(default_factory=dict)

    def has(self, topic: Topic, partition: int, event_id: str, stream: str | None, order_us: int) -> bool:
        if topic.compacted:
            return True
        place = (topic.name, partition, stream or "")
        watermark_us = self._watermarks.get(place)
        return (watermark_us is not None and order_us < watermark_us) or event_id in self._orders.get(place, ())

    def has_watermark(self, topic: str, partition: int, stream: str, time_us: int) -> bool:
        return time_us <= self._watermarks.get((topic, partition, stream), -(2**63))

    def add(self, record: Record, envelope: Envelope) -> None:
        """Take one event of a store that is not sealed."""
        self.count += 1
        attributes = envelope.attributes
        place = (record.topic, record.partition, attributes.get("ce_stream", b"").decode())
        self._orders[place][attributes["ce_id"].decode()] = envelope.order_us

    def add_clock(self, clock: Event[ClockAdvanced]) -> None:
        for stream, time_us in clock.data.times_us().items():
            place = (clock.topic, clock.partition, stream)
            self._watermarks[place] = time_us
            self._orders[place] = {event: us for event, us in self._orders[place].items() if us >= time_us}


def stateless_outputs(service: Service[Any]) -> set[str]:
    """Topics on which other stores' identities are passed on."""
    return {topic_of(h.output, service.name).name for h in service.handlers if isinstance(h, Stateless)}


def inputs_of(service: Service[Any]) -> list[Topic]:
    """The topics of the map that are folded into the service's store."""
    scored = {h.payload for h in service.handlers if isinstance(h, Stateless)}
    return [topic for topic in consumed_by(service.name) if topic.payload not in scored]


def partitions_of(topics: Iterable[Topic]) -> list[TopicPartition]:
    return [(topic.name, partition) for topic in topics for partition in range(topic.partitions)]


def _order_of(event: Event[Any]) -> tuple[int, str, int]:
    """Transactions in their order; in each, what one handler said in its order."""
    return event.recorded_us, event.attribute("shard") or "", int(event.attribute("sequence") or 0)


def _place(record: Record) -> str:
    return record_place(record.topic, record.partition, record.offset)


class BeforeSeals:
    """Reads what a service said, record by record, up to the seals that its newest store has said."""

    def __init__(self, service: Service[Any], stores: set[str], first_sequence: int) -> None:
        """Up to the seals that these stores have said from that sequence on; without them, all of it."""
        self._service, self._stores, self._first_sequence = service.name, stores, first_sequence
        self._passed_on = stateless_outputs(service)
        self._decoder = Decoder(published_by(service.name))
        self._sealed: set[tuple[str, str, int]] = set()
        self._closed: set[TopicPartition] = set()
        self.found = Found()

    def take(self, record: Record) -> None:
        """Raises Undecodable for what no service has said."""
        topic, tp = record.topic, (record.topic, record.partition)
        envelope = open_envelope(record)
        origin = envelope.origin
        if origin is None:
            return
        source, store = _said_by(origin, self._service)
        if tp in self._closed or (source, *tp) in self._sealed:
            return
        own_store = None if topic in self._passed_on else store
        if own_store is not None:
            self.found.stores.add(own_store)
        said = self._decode(record, envelope, is_own=own_store is not None)
        if said is not None and isinstance(said.data, SourcesSealed):
            self._sealed |= {(one, *tp) for one in said.data.sources}
            if store in self._stores and origin[2] >= self._first_sequence:
                self._closed.add(tp)
        elif own_store is None:
            return
        elif said is not None and isinstance(said.data, ClockAdvanced):
            self.found.add_clock(said)
        else:
            self.found.add(record, envelope)
            if said is not None:
                self.found.events.append(said)

    def _decode(self, record: Record, envelope: Envelope, *, is_own: bool) -> Event[Any] | None:
        """None for an event of which only the id is wanted: there may be many."""
        is_fact = is_own and BY_NAME[record.topic].plane is Plane.CONTROL
        in_band = envelope.attributes["ce_type"] in IN_BAND_TYPES
        return self._decoder.decode(record, envelope) if is_fact or in_band else None


class OwnTopics:
    """The topics that a service publishes to, read from outside any transaction. Belongs to the event loop."""

    def __init__(self, service: Service[Any], bus: Bus) -> None:
        self._service, self._bus = service, bus

    async def before_seals(self, stores: set[str], first_sequence: int) -> Found:
        """What stands before the seals that these stores have said from that sequence on; without them, all of it."""
        reading = BeforeSeals(self._service, stores, first_sequence)
        async for record in self._records(published_by(self._service.name)):
            try:
                reading.take(record)
            except Undecodable as error:
                log.warning("a record on our own topic is not ours", where=_place(record), error=str(error))
        reading.found.events.sort(key=_order_of)
        return reading.found

    async def check_whole(
        self, store_id: str, former: Iterable[str], sequences: Mapping[str, int], *, accept_new_store: bool
    ) -> None:
        """Raises Stop if the topics hold what this store does not know of: it is an older copy, or began anew in place of
        another store."""
        service = self._service
        known, is_alone = {store_id, *former}, service.one_store and not accept_new_store
        cure = (
            f"run `evenkeel rebuild {service.name}`"
            if service.rebuild is not None
            else "restore its newest copy: this store cannot be made again from the topics, and events would be lost or "
            "doubled"
        )
        topics = [t for t in published_by(service.name) if t.name not in stateless_outputs(service)]
        async for record in self._records(topics, TAIL_RECORDS):
            try:
                origin = open_envelope(record).origin
            except Undecodable:
                continue
            if origin is None:
                continue
            _, store = _said_by(origin, service.name)
            shard, sequence = origin[1].decode(errors="replace"), origin[2]
            if store == store_id and sequence > sequences.get(shard, 0):
                raise Stop(
                    f"the store of {service.name} is older than what it has published ({_place(record)} has sequence "
                    f"{sequence} of {shard}, the store's last is {sequences.get(shard, 0)}): {cure}"
                )
            if store is not None and store not in known and is_alone:
                state = "is older than" if sequences else "is new, and knows nothing of"
                raise Stop(
                    f"the store of {service.name} {state} what another one has published ({_place(record)} is store "
                    f"{store}'s): {cure}"
                )

    async def _records(self, topics: Sequence[Topic], tail: int | None = None) -> AsyncIterator[Record]:
        """What the topics hold now, or the last so many records of each partition."""
        partitions = partitions_of(topics)
        begins, ends = await self._bus.beginning_offsets(partitions), await self._bus.end_offsets(partitions)
        ranges = {
            tp: (begins[tp] if tail is None else max(begins[tp], end - tail), end)
            for tp, end in ends.items()
            if end > begins[tp]
        }
        async for records in self._bus.read_between(ranges):
            for record in records:
                yield record


def _said_by(origin: Origin, service: str) -> tuple[str, str | None]:
    """The source, and the store of this service that it names, if any."""
    source = origin[0].decode(errors="replace")
    store = source.rpartition("/")[2]
    return source, store if source == source_of(service, store) and _STORE_ID(store) else None
