"""Step 5 for what is merged in event time: hold, release, park, all in the transaction of the batch.

The order is `merge.py`'s, what is held is kept by `held.py`, what is parked by `parking.py`; here they meet the handler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from evenkeel.contracts.envelope import Event, Record
from evenkeel.libs.errors import EvenkeelError, Retry
from evenkeel.libs.runtime.attempt import HandlerFailed
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.runtime.handling import Handling, place_of
from evenkeel.libs.runtime.held import HeldRecords, Where, decode_record, encode_record
from evenkeel.libs.runtime.merge import EventTimeMerge, Group, name_of
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.runtime.parking import Parked, ParkedQueues, read_parked
from evenkeel.libs.runtime.routing import Routes
from evenkeel.libs.service import Context, Merge, Output, Released
from evenkeel.libs.store.protocol import RuntimeState, Transaction

C = TypeVar("C", bound=Context)


class Merging(Generic[C]):
    """What a service's event-time merge holds between transactions. Belongs to the writer thread; made anew by `load`
    after a transaction that failed."""

    def __init__(self, routes: Routes[C], context: C) -> None:
        self._routes, self._context = routes, context
        partitions = {name: topic.partitions for name, topic in routes.merged.items()}
        self._merge = EventTimeMerge(partitions, {topic.payload: name for name, topic in routes.merged.items()})
        self._held = HeldRecords()
        self._parked = ParkedQueues()

    def held_record(self, place: Where) -> Record:
        """One of those that are held, as it was read."""
        return self._held[place]

    @property
    def held_records(self) -> int:
        return self._merge.held

    @property
    def parked_records(self) -> int:
        return self._parked.records

    def ahead(self) -> set[tuple[str, int]]:
        """What need not be read now, because the merge waits for other partitions."""
        return self._merge.ahead()

    def parked(self) -> list[tuple[Group | None, list[Parked]]]:
        """What is parked, a queue for each key."""
        return list(self._parked)

    def load(self, state: RuntimeState, decode: Callable[[Record], Event[Any]]) -> None:
        """As it was when the store was last committed; the context has read its caches."""
        self._merge.clear()
        self._merge.regroup(self._context.merge_groups())
        self._merge.restore(state.watermarks)
        self._held = HeldRecords(state.held)
        for record in self._held:
            if not self._merge.add(decode(record)):
                self._held.discard([(record.topic, record.partition, record.offset)])
        parked = [read_parked(stored, lambda blob: decode(decode_record(blob))) for stored in state.parked]
        self._parked.arrange(parked, self._merge.group_of)

    def run(self, handler: Merge[C], handling: Handling[C], builder: OutputBuilder, tx: Transaction) -> None:
        """Take in what the batch brought, and hand over what nothing earlier can come before any more."""
        self._regroup()
        added = self._take_in(handling)
        parked: list[Parked] = []
        for group, watermark_us, events in self._merge.release():
            stored = [place for place in map(place_of, events) if added.pop(place, None) is None]
            kept = events
            if handling.attempt.poison or self._parked:
                kept = [event for event in events if not self._park(event, group, handling, parked)]
            self._hand_over(handler, Released(kept, watermark_us, group), handling, builder)
            self._held.discard(stored)
            failpoint("merge.released")
        self._held.add([handling.batch.by_place[where] for where in added])
        self._held.write(tx)
        tx.add_parked(one.stored for one in parked)
        tx.put_watermarks(self._merge.changed_watermarks())

    def _regroup(self) -> None:
        """Which streams are merged with which may have changed with the facts of this batch."""
        unwanted = self._merge.regroup(self._context.merge_groups())
        self._held.discard(map(place_of, unwanted))
        if self._parked:
            self._parked.arrange([one for _, queue in self._parked for one in queue], self._merge.group_of)

    def _take_in(self, handling: Handling[C]) -> dict[Where, Event[Any]]:
        """The events that are held from here on, by place."""
        batch, added = handling.batch, dict[Where, Event[Any]]()
        for clock in batch.clocks:
            for stream, time_us in clock.data.times_us().items():
                self._merge.observe(clock.topic, clock.partition, stream, time_us)
        for topic in self._routes.merged:
            for event in batch.data.get(topic, ()):
                if not self._is_usable(event, handling):
                    continue
                if self._merge.add(event):
                    added[topic, event.partition, event.offset] = event
        return added

    def _is_usable(self, event: Event[Any], handling: Handling[C]) -> bool:
        """Whether an event may be merged; what cannot even be asked that has no place in the order, so it is not parked."""
        try:
            return handling.call(partial(self._context.require, event), event, alone=True)
        except HandlerFailed as error:
            reason = handling.attempt.poison.get(error.where)
            if reason is None:
                raise
            handling.batch.dead.append((handling.record_at(error.where), reason))
            return False

    def _park(self, event: Event[Any], group: Group, handling: Handling[C], parked: list[Parked]) -> bool:
        """Whether a released event may not be folded: it failed before, or one of its key is parked already."""
        where = place_of(event)
        record = handling.record_at(where)
        key, reason = record.key or b"", handling.attempt.poison.get(where)
        if reason is None and (group, key) not in self._parked:
            return False
        number, now_us = self._parked.next_number, self._context.now_us
        one = Parked(number, key, reason or "", now_us, event, encode_record(record))
        self._parked.add(group, one)
        parked.append(one)
        return True

    def _hand_over(self, handler: Merge[C], released: Released, handling: Handling[C], builder: OutputBuilder) -> None:
        fold, shard = handler.handler, name_of(released.group)
        if not handling.attempt.isolate:
            builder.add(list(fold(released, self._context)), shard)
            return
        for event in released.events:
            single = Released([event], event.order_us, released.group)
            handling.call(lambda: builder.add(list(fold(single, self._context)), shard), event, alone=True)
        builder.add(list(fold(Released([], released.watermark_us, released.group), self._context)), shard)

    def release_parked(self, group: Group | None, key: bytes, tx: Transaction) -> tuple[int, Sequence[Output]]:
        """Fold the queue of a parked key, all or nothing: how many records that were, and what follows from them. Raises
        HandlerFailed if it fails again."""
        queue = self._parked.take((group, key))
        outputs = [] if group is None else self._fold_parked(queue, group)
        tx.remove_parked(place_of(one.event) for one in queue)
        return len(queue), outputs

    def _fold_parked(self, queue: Sequence[Parked], group: Group) -> list[Output]:
        assert self._routes.merge is not None
        watermark_us, outputs = self._merge.released_us(group), list[Output]()
        if watermark_us is None:
            raise Retry("the merge has not released anything since its streams were declared: wait for a record")
        for one in queue:
            event = one.at(watermark_us)
            try:
                outputs += self._routes.merge.handler(Released([event], watermark_us, group), self._context)
            except EvenkeelError:
                raise
            except Exception as error:
                raise HandlerFailed(event.id, place_of(event), error) from error
        return outputs
