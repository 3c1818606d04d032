"""What ingest's handlers see: the routes of raw topics and the live streams, both rebuilt from the store."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from evenkeel.contracts.declaration import StreamSpec
from evenkeel.contracts.registry import Declared
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.service import Context
from evenkeel.libs.store.protocol import Transaction
from evenkeel.services.ingest.domain.stream import Route, Stream, routes_of
from evenkeel.services.ingest.domain.watermark import Patience
from evenkeel.services.ingest.settings import IngestSettings
from evenkeel.services.ingest.store import IngestStore

log = structlog.get_logger(__name__)


class IngestContext(Context):
    own: IngestSettings

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        """By raw topic, also those that an older declaration named: what was sent there is still read."""
        self.current: dict[str, StreamSpec] = {}
        """By stream."""
        self.streams: dict[str, Stream] = {}
        """By name: `flights`, `flights#label`."""
        self.partitions: dict[str, int] = {}
        """How many partitions each raw topic has."""
        self.patience: dict[str, Patience] = {}
        self._raw_topics: dict[str, int] = {}

    @property
    def store(self) -> IngestStore:
        return IngestStore(self.tx.connection)

    def load(self, tx: Transaction) -> None:
        stored = IngestStore(tx.connection)
        streams = stored.streams()
        for stream in streams.values():
            stream.clock.partitions(self.partitions.get(stream.topic, 0))
        routes: dict[str, Route] = {}
        current: dict[str, StreamSpec] = {}
        for one in stored.declarations():
            name = one.stream
            spec, found = _read(name, one.declared, one.offset)
            if spec is None:
                routes = {topic: route for topic, route in routes.items() if route.stream != name}
                current.pop(name, None)
            else:
                routes |= {route.topic: route for route in found}
                current[name] = spec
        # The HTTP door looks on from another thread: it sees the old ones or the new ones, never none.
        self.streams, self.routes, self.current = streams, routes, current
        self._raw_topics = dict.fromkeys(routes, self.own.raw_partitions)

    def raw_topics(self) -> Mapping[str, int]:
        return self._raw_topics

    def assigned(self, partitions: Mapping[str, int]) -> None:
        self.partitions = dict(partitions)
        for stream in self.streams.values():
            stream.clock.partitions(self.partitions.get(stream.topic, 0))

    def declare(self, name: str, declared: Declared, offset: int) -> None:
        """From here on records of this stream are checked under this declaration.

        If it is one that this release cannot check, the stream's raw topics are not read until a release comes that can:
        what producers send meanwhile waits there.
        """
        self.store.add_declaration(offset, name, declared)
        spec, found = _read(name, declared, offset)
        if spec is None:
            self.routes = {topic: route for topic, route in self.routes.items() if route.stream != name}
            self.current = {other: known for other, known in self.current.items() if other != name}
        else:
            self.current[name] = spec
        for route in found:
            stream = self.streams.get(route.name)
            if stream is None:
                stream = self.streams[route.name] = Stream(route.topic)
                self.store.add_stream(route.name, stream)
            elif stream.topic != route.topic:
                # The watermark stays; the partitions that it follows from are the new topic's.
                stream.topic, stream.positions, stream.clock.marks = route.topic, {}, {}
                stream.clock.partitions(self.partitions.get(route.topic, 0))
                self.store.save_stream(route.name, stream)
            self.routes[route.topic] = route
        self._raw_topics = dict.fromkeys(self.routes, self.own.raw_partitions)

    def save(self, name: str, stream: Stream) -> None:
        """Store what one batch changed, and forget ids beyond the horizon."""
        store = self.store
        batch = stream.seen.take_batch()
        if batch is not None:
            store.add_ids(name, batch)
        watermark_us = stream.clock.watermark_us
        oldest_us = None if watermark_us is None else watermark_us - self.own.id_horizon_seconds * 1_000_000
        last = stream.seen.prune(oldest_us, self.own.max_ids_per_stream)
        if last is not None:
            store.forget_ids(name, last)
        store.save_stream(name, stream)


def _read(name: str, declared: Declared, offset: int) -> tuple[StreamSpec | None, list[Route]]:
    """The contract and its routes; nothing if this release cannot check it."""
    try:
        spec = StreamSpec.model_validate(declared)
        return spec, raw_routes(name, spec, offset)
    except ValueError as error:
        log.error("a stream is not read: upgrade this service", stream=name, offset=offset, reason=str(error))
        return None, []


def raw_routes(name: str, spec: StreamSpec, offset: int) -> list[Route]:
    """The routes of a declaration, but never one from a topic of our own."""
    routes = routes_of(name, spec, offset)
    for route in routes:
        if route.topic in BY_NAME:
            log.error("a declaration names one of our topics as a raw topic: ignored", stream=name, topic=route.topic)
    return [route for route in routes if route.topic not in BY_NAME]
