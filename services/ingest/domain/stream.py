"""One stream (events, or labels as `<stream>#label`): its place in time, the ids it has seen, what became of its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from evenkeel.contracts.declaration import StreamSpec, format_duration
from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.ids import accepted_event_id, accepted_label_id, label_stream
from evenkeel.libs.fields import Fault
from evenkeel.services.ingest.domain.contract import Checked, Contract, Kind
from evenkeel.services.ingest.domain.identities import SeenIds
from evenkeel.services.ingest.domain.watermark import StreamClock


@dataclass(frozen=True, slots=True)
class Route:
    """What is read from one raw topic, and the declaration that it is checked under."""

    topic: str
    stream: str
    kind: Kind
    declaration: int
    """Offset in `registry.stream-declared`."""
    spec: StreamSpec
    contract: Contract

    @property
    def name(self) -> str:
        """The stream's name in merges and watermarks."""
        return self.stream if self.kind == "event" else label_stream(self.stream)


def routes_of(stream: str, spec: StreamSpec, declaration: int) -> list[Route]:
    """The raw topics that a declaration names."""
    routes = [Route(spec.topic, stream, "event", declaration, spec, Contract(spec))]
    if spec.label is not None:
        routes.append(Route(spec.label.topic, stream, "label", declaration, spec, Contract(spec.label)))
    return routes


_EVENT_ID: Final[dict[Kind, Callable[[str, str], str]]] = {"event": accepted_event_id, "label": accepted_label_id}


class Judged(NamedTuple):
    """A record that the stream can take: the id of its event, and what is remembered of it."""

    event_id: str
    late: bool
    """Behind the watermark, but not too far."""
    id_digest: int
    content_digest: int


@dataclass(slots=True)
class Stream:
    """What is known of a stream now. `topic` is where its current declaration reads it; others no longer count in time."""

    topic: str
    clock: StreamClock = field(default_factory=StreamClock)
    seen: SeenIds = field(default_factory=SeenIds)
    largest_us: int | None = None
    """The largest event time accepted."""
    positions: dict[int, int] = field(default_factory=dict)
    """Next offset of each partition."""
    counts: Counter[str] = field(default_factory=Counter)
    """accepted, late, heartbeats, wait_expired."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By rule."""

    @property
    def time_us(self) -> int | None:
        """The stream's own time: its watermark, or before there is one the largest event time."""
        return self.largest_us if self.clock.watermark_us is None else self.clock.watermark_us

    def read(self, route: Route, partition: int, offset: int) -> None:
        """The record at this offset has been read."""
        if route.topic == self.topic:
            self.positions[partition] = offset + 1

    def heartbeat(self, route: Route, partition: int, time_us: int) -> None:
        """The producer says that nothing earlier comes on this partition."""
        self._spoke(route, partition, time_us)
        self.counts["heartbeats"] += 1

    def accept(self, checked: Checked, route: Route, partition: int) -> Judged:
        """Take a record that fits its contract; raises Fault if the stream cannot take it. A repeat moves time, too."""
        mark_us = checked.time_us - route.spec.disorder_us
        try:
            judged = self.judge(checked, route, partition)
        except Fault as fault:
            if fault.rule == "duplicate":
                self._spoke(route, partition, mark_us)
            raise
        self.seen.add(judged.id_digest, judged.content_digest, checked.time_us)
        self.counts["accepted"] += 1
        if judged.late:
            self.counts["late"] += 1
        if self.largest_us is None or checked.time_us > self.largest_us:
            self.largest_us = checked.time_us
        self._spoke(route, partition, mark_us)
        return judged

    def reject(self, fault: Fault) -> None:
        """Count a record that was not taken."""
        self.rejected[fault.rule] += 1

    def _spoke(self, route: Route, partition: int, mark_us: int) -> None:
        # A topic that the stream no longer names is still read, but has no say in its watermark.
        if route.topic == self.topic:
            self.clock.advance(partition, mark_us)

    def judge(self, checked: Checked, route: Route, partition: int) -> Judged:
        """Whether the stream can take a record, and whether it is late; raises Fault when it came before, contradicts an
        earlier one or is out of time. Changes nothing.

        Ids come first: a repeat of an accepted record is a duplicate however late it comes. Too far ahead is a record
        that jumps beyond both the stream's watermark and its own partition, so that it does not matter which partition
        of a backlog is read first.
        """
        spec, event_id = route.spec, _EVENT_ID[route.kind](route.stream, checked.record_id)
        id_digest, content_digest = int(event_id[28:] + event_id[:8], 16), checked.digest()
        known = self.seen.look(id_digest, content_digest)
        if known != "new":
            raise _known(checked.record_id, known == "duplicate")
        time_us, watermark_us = checked.time_us, self.clock.watermark_us
        reference_us = self.largest_us if watermark_us is None else watermark_us
        if reference_us is not None and time_us > reference_us + spec.max_ahead_us:
            own_us = self.clock.marks.get(partition) if route.topic == self.topic else None
            if own_us is not None and own_us > reference_us:
                reference_us = own_us
        if reference_us is not None and time_us > reference_us + spec.max_ahead_us:
            raise Fault(
                "too_far_ahead",
                f"{format_us(time_us)} is more than {format_duration(spec.max_ahead_us)} ahead of the stream, "
                f"which is at {format_us(reference_us)}.",
                "Check the producer's clock. If time really jumped, send a heartbeat on every partition first.",
                event_id=checked.record_id,
            )
        if watermark_us is None or time_us >= watermark_us:
            return Judged(event_id, False, id_digest, content_digest)
        if time_us < watermark_us - spec.lateness_us:
            raise Fault(
                "too_late",
                f"{format_us(time_us)} is more than {format_duration(spec.lateness_us)} behind the stream's watermark, "
                f"{format_us(watermark_us)}.",
                "Send records sooner, or declare a larger disorder or lateness.",
                event_id=checked.record_id,
            )
        return Judged(event_id, True, id_digest, content_digest)


def _known(record_id: str, duplicate: bool) -> Fault:
    if duplicate:
        reason, fix = f"{record_id} was accepted before with this content.", "Nothing: the first one counts."
        return Fault("duplicate", reason, fix, event_id=record_id)
    reason = f"{record_id} was accepted before with other content."
    return Fault("id_conflict", reason, "Give every record an id of its own.", event_id=record_id)
