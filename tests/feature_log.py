"""The feature service over a log of accepted records, without a broker: real records, runtime, store and handlers.

The log is what ingest would have written. A test decides on which partition each record lies, how partitions interleave
and where batches and restarts fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from evenkeel.contracts.declaration import Declaration
from evenkeel.contracts.envelope import WATERMARK_TYPE, Event, Headers, attributes_of, parse_us
from evenkeel.contracts.feature import VectorComputed, ViewUpdated
from evenkeel.contracts.ids import LABEL_SUFFIX, accepted_event_id, accepted_label_id, label_stream
from evenkeel.contracts.ingest import EventAccepted, LabelAccepted, RawRecord
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ModelDeclared, StreamDeclared
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.features import SlotUpdate, compile_plan
from evenkeel.libs.process.instance import is_gone
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.service import Cause, Derived, Watermark
from evenkeel.libs.settings import Settings
from evenkeel.libs.telemetry.tracing import Tracing
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.domain import TrainingRow
from evenkeel.services.feature.service import service
from evenkeel.services.feature.settings import FeatureSettings
from evenkeel.services.feature.store import FeatureStore

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
START_US: Final = parse_us("2013-01-01T00:00:00Z")

DECLARATION: Final = """
streams:
  flights:
    topic: flights
    id: id
    time: at
    fields: {origin: {type: string}, carrier: {type: string}, load: {type: number}}
    label:
      topic: arrivals
      id: id
      joins: id
      time: at
      horizon: 12h
      fields: {origin: {type: string}, carrier: {type: string}, delay: {type: number}}
  weather:
    topic: weather
    id: id
    time: at
    fields: {origin: {type: string}, wind: {type: number}}
  sales:
    topic: sales
    id: id
    time: at
    fields: {shop: {type: string}, amount: {type: number}}
    label:
      topic: returns
      id: id
      joins: id
      time: at
      horizon: 2d
      fields: {returned: {type: boolean}}
models:
  delay:
    task: binary
    stream: flights
    label: delay > 15
    features:
      - fields: [load]
      - {of: flights.load, by: [origin], compute: [count, mean, std], over: [1h]}
      - {of: flights.label.delay, by: [origin], compute: [count, mean], over: [1h, 6h]}
      - {of: flights.label.delay, by: [origin, carrier], compute: [last, time_since_last], over: [6h]}
      - {of: weather.wind, by: [origin], compute: [last, max], over: [3h]}
  load:
    task: regression
    stream: flights
    label: delay
    features:
      - {of: flights.load, by: [carrier], compute: [sum, min], over: [2h]}
  returned:
    task: binary
    stream: sales
    label: returned
    features:
      - {of: sales.amount, by: [shop], compute: [count, sum], over: [24h]}
"""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record of the log; see evenkeel.contracts.envelope.Record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int = 0


@dataclass
class Log:
    """The topics that feature reads. `declaration` is what registry has published so far."""

    declaration: Declaration = field(default_factory=lambda: load_declaration(DECLARATION, "log.yaml"))
    records: list[LogRecord] = field(default_factory=list)
    """In the order in which they were written."""
    _ends: dict[tuple[str, int], int] = field(default_factory=dict)
    _builders: dict[str, OutputBuilder] = field(default_factory=dict)

    def _write(self, producer: str, output: Derived | Watermark, partition: int | None) -> None:
        builder = self._builders.get(producer)
        if builder is None:
            trace = Tracing(producer, "test").batch()
            builder = self._builders[producer] = OutputBuilder(producer, "log", {}, START_US, trace)
        builder.add([output], "test")
        for one in builder.records:
            where = (one.topic, one.partition if partition is None or one.value is None else partition)
            offset = self._ends[where] = self._ends.get(where, -1) + 1
            self.records.append(LogRecord(*where, offset, one.key, one.value, one.headers))
        builder.records.clear()

    def declare(self, streams: Iterable[str], models: Iterable[str], declaration: Declaration | None = None) -> None:
        if declaration is not None:
            self.declaration = declaration
        for name in streams:
            self._control(StreamDeclared(name=name, spec=self.declaration.streams[name]))
        for name in models:
            spec = self.declaration.models[name]
            plan = compile_plan(spec, self.declaration.streams)
            declared = ModelDeclared(
                name=name, spec=spec, streams=self.declaration.streams, view_version=plan.view_version
            )
            self._control(declared)

    def _control(self, payload: Payload) -> None:
        number = len(self.records)
        self._write("registry", Derived(payload, Cause(f"control-{number}", START_US, "")), None)

    def event(
        self,
        stream: str,
        event_id: str,
        time_us: int,
        fields: Mapping[str, Any],
        *,
        watermark_us: int | None = None,
        partition: int | None = None,
        declaration: int = 0,
    ) -> None:
        late = watermark_us is not None and time_us < watermark_us
        payload = EventAccepted(
            stream=stream, event_id=event_id, fields=dict(fields), declaration=declaration, late=late, raw=RAW
        )
        self._accepted(payload, stream, event_id, time_us, stream, watermark_us, partition)

    def label(
        self,
        stream: str,
        event_id: str,
        time_us: int,
        fields: Mapping[str, Any],
        *,
        watermark_us: int | None = None,
        partition: int | None = None,
    ) -> None:
        payload = LabelAccepted(
            stream=stream, event_id=event_id, label_id=event_id, fields=dict(fields), declaration=0, raw=RAW
        )
        self._accepted(payload, stream, event_id, time_us, label_stream(stream), watermark_us, partition)

    def _accepted(
        self,
        payload: Payload,
        stream: str,
        record_id: str,
        time_us: int,
        merged_as: str,
        watermark_us: int | None,
        partition: int | None,
    ) -> None:
        event_id = accepted_id(merged_as, record_id)
        cause = Cause(event_id, time_us, event_id)
        derived = Derived(payload, cause, id=event_id, stream=merged_as, watermark_us=watermark_us)
        self._write("ingest", derived, partition)

    def watermark(self, stream: str, time_us: int) -> None:
        """Nothing of this stream (labels: `<stream>#label`) earlier than `time_us` follows on any partition."""
        payload = LabelAccepted if stream.endswith(LABEL_SUFFIX) else EventAccepted
        self._write("ingest", Watermark(payload, stream, time_us), None)

    def close(self, time_us: int) -> None:
        """Everything declared has come as far as this."""
        for name, spec in self.declaration.streams.items():
            self.watermark(name, time_us)
            if spec.label is not None:
                self.watermark(label_stream(name), time_us)


RAW: Final = RawRecord(topic="raw", partition=0, offset=0, sha256="0" * 64)


def accepted_id(merged_as: str, record_id: str) -> str:
    """The CloudEvents id that ingest gives an accepted record; the merge breaks ties of time and stream by it."""
    if merged_as.endswith(LABEL_SUFFIX):
        return accepted_label_id(merged_as.removesuffix(LABEL_SUFFIX), record_id)
    return accepted_event_id(merged_as, record_id)


class ManualClock:
    """Wall time that tests move."""

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.us


class Feature:
    """The service in a data folder. `restart` forgets everything that is not in its store."""

    def __init__(self, data_dir: Path, database_url: str | None = None, **own: Any) -> None:
        self.data_dir, self._database_url = data_dir, database_url
        self.own = FeatureSettings(**({"view_flush_ms": 0} | own))
        self.clock = ManualClock()
        self.published: list[Event[Any]] = []
        """Events in the order in which they were committed."""
        self.watermarks: list[tuple[str, int]] = []
        self.runtime = self._start()

    def _start(self) -> Runtime[FeatureContext]:
        bus = KafkaBus("127.0.0.1:1", "feature")
        settings = Settings(data_dir=self.data_dir, database_url=self._database_url)
        runtime = Runtime(service, settings, self.own, bus, self.clock)
        runtime.store.open()
        epoch = runtime.store.take_lease(runtime.instance, self.clock.now_us(), 1, is_gone)
        assert epoch is not None
        runtime._lease_epoch = epoch
        runtime._batch.load()
        return runtime

    def restart(self) -> None:
        self.stop()
        self.runtime = self._start()

    def stop(self) -> None:
        self.runtime.store.close()
        self.runtime._writer.shutdown()
        self.runtime._readers.close()

    @property
    def context(self) -> FeatureContext:
        return self.runtime.context

    def consume(self, records: Sequence[LogRecord]) -> None:
        """One batch; raises what the handlers raise, with everything rolled back."""
        try:
            self._keep(self.runtime._batch.consume(records).records)
        except BaseException:
            self.runtime._batch.load()
            raise

    def run(self, handler: Any, shard: str = "job") -> Any:
        committed, answer = self.runtime._batch.run(handler, shard)
        self._keep(committed.records)
        return answer

    def _keep(self, records: Iterable[Any]) -> None:
        for record in records:
            attributes = attributes_of(record.headers)
            if attributes["ce_type"] == WATERMARK_TYPE.encode():
                if record.partition == 0:
                    self.watermarks.append(
                        (attributes["ce_stream"].decode(), parse_us(attributes["ce_watermark"].decode()))
                    )
                continue
            data = BY_NAME[record.topic].payload.model_validate_json(record.value)
            event_id, time_us = attributes["ce_id"].decode(), parse_us(attributes["ce_time"].decode())
            self.published.append(Event(data, event_id, time_us, record.topic, record.partition, 0, attributes))

    def events(self, payload: type[Payload]) -> list[Event[Any]]:
        return [event for event in self.published if isinstance(event.data, payload)]

    def vectors(self, model: str) -> dict[str, list[float | None]]:
        """Event id → values; every event once."""
        found = [event.data for event in self.events(VectorComputed) if event.data.model == model]
        assert len({one.event_id for one in found}) == len(found)
        return {one.event_id: one.values for one in found}

    def slots(self, model: str) -> dict[str, SlotUpdate]:
        """The compacted view topic of a model: the newest update of each slot."""
        return {
            event.data.slot: SlotUpdate(event.data.slot, event.data.tile)
            for event in self.events(ViewUpdated)
            if event.data.view == model
        }

    def staged_rows(self, model: str) -> list[tuple[int, list[TrainingRow]]]:
        """(label cut, rows) of each staged commit."""
        with self.runtime.store.begin() as tx:
            store = FeatureStore(tx.connection)
            return [(c.cut_us, store.rows_of(model, c.sequence)) for c in store.staged() if c.model == model]
