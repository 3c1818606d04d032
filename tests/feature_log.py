"""The feature service over a log of accepted records, without a broker: real records, runtime, store and handlers.

The log is what ingest would have written. A test decides on which partition each record lies, how partitions interleave
and where batches and restarts fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from evenkeel.contracts.declaration import Declaration
from evenkeel.contracts.envelope import parse_us
from evenkeel.contracts.feature import VectorComputed, ViewUpdated
from evenkeel.contracts.ids import LABEL_SUFFIX, accepted_event_id, accepted_label_id, label_stream
from evenkeel.contracts.ingest import EventAccepted, LabelAccepted
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ModelDeclared, StreamDeclared
from evenkeel.contracts.runtime import ClockAdvanced
from evenkeel.contracts.topics import topic_of
from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.features import SlotUpdate, compile_plan
from evenkeel.libs.service import Cause, Derived, Watermark
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.domain.rows import TrainingRow
from evenkeel.services.feature.service import service
from evenkeel.services.feature.settings import FeatureSettings
from evenkeel.services.feature.store import FeatureStore
from tests.harness import Harness, ManualClock
from tests.makers import event_accepted, label_accepted
from tests.records import Topics

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


class Log(Topics):
    """The topics that feature reads. `declaration` is what registry has published so far."""

    def __init__(self, declaration: Declaration | None = None) -> None:
        super().__init__()
        self.declaration = declaration or load_declaration(DECLARATION, "log.yaml")

    def declare(self, streams: Iterable[str], models: Iterable[str], declaration: Declaration | None = None) -> None:
        if declaration is not None:
            self.declaration = declaration
        for name in streams:
            self._control(StreamDeclared.of(name=name, spec=self.declaration.streams[name]))
        for name in models:
            spec = self.declaration.models[name]
            plan = compile_plan(spec, self.declaration.streams)
            declared = ModelDeclared.of(
                name=name, spec=spec, streams=self.declaration.streams, view_version=plan.view_version
            )
            self._control(declared)

    def _control(self, payload: Payload) -> None:
        number = len(self.records)
        self.say("registry", [Derived(payload, Cause(f"control-{number}", START_US, ""))])

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
        payload = event_accepted(
            stream=stream, event_id=event_id, fields=dict(fields), declaration=declaration, late=late
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
        payload = label_accepted(
            stream=stream, event_id=event_id, label_id=event_id, fields=dict(fields), declaration=0
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
        order_us = time_us if watermark_us is None else max(time_us, watermark_us)
        derived = Derived(payload, cause, id=event_id, stream=merged_as, order_us=order_us)
        self.say("ingest", [derived], partition=partition)
        if watermark_us is not None:
            self.watermark(merged_as, watermark_us)

    def watermark(self, stream: str, time_us: int) -> None:
        """Nothing of this stream (labels: `<stream>#label`) earlier than `time_us` follows on any partition."""
        payload = LabelAccepted if stream.endswith(LABEL_SUFFIX) else EventAccepted
        self.say("ingest", [Watermark(payload, stream, time_us)])

    def close(self, time_us: int) -> None:
        """Everything declared has come as far as this."""
        for name, spec in self.declaration.streams.items():
            self.watermark(name, time_us)
            if spec.label is not None:
                self.watermark(label_stream(name), time_us)


def accepted_id(merged_as: str, record_id: str) -> str:
    """The CloudEvents id that ingest gives an accepted record; the merge breaks ties of time and stream by it."""
    if merged_as.endswith(LABEL_SUFFIX):
        return accepted_label_id(merged_as.removesuffix(LABEL_SUFFIX), record_id)
    return accepted_event_id(merged_as, record_id)


class Feature(Harness[FeatureContext]):
    """The service in a data folder. `restart` forgets everything that is not in its store."""

    def __init__(self, data_dir: Path, database_url: str | None = None, **own: Any) -> None:
        settings = FeatureSettings(**({"view_flush_ms": 0} | own))
        super().__init__(
            service, data_dir, settings, database_url=database_url, clock=ManualClock(1_700_000_000_000_000)
        )

    @property
    def watermarks(self) -> list[tuple[str, int]]:
        """Those of vectors that were said, on one partition."""
        vectors = topic_of(VectorComputed, "feature").name
        return [
            mark
            for said in self.events(ClockAdvanced)
            if (said.topic, said.partition) == (vectors, 0)
            for mark in said.data.times_us().items()
        ]

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
        with self.store.begin() as tx:
            store = FeatureStore(tx.connection)
            return [(c.cut_us, store.rows_of(model, c.sequence)) for c in store.staged() if c.model == model]
