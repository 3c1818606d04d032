"""What monitor costs per record, in its own transaction loop on SQLite: decode, merge, join, measure, commit.

python -m tests.bench.monitor_fold [days] [records of a kind per day]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.ingest import LabelAccepted
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.clock import HOUR_US
from evenkeel.libs.process.instance import is_gone
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.service import Cause, Derived, Watermark
from evenkeel.libs.settings import Settings
from evenkeel.libs.telemetry.tracing import Tracing
from evenkeel.services.monitor.service import service
from tests.unit.monitor import scenes

FEATURES = 38


class Read(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Log:
    """Records as a broker would hand them over."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[str, int], int] = {}
        self._sequences: dict[str, int] = {}
        self._trace = Tracing("bench", "bench").batch()

    def records(self, producer: str, outputs: list[Derived | Watermark]) -> list[Read]:
        builder = OutputBuilder(producer, "bench", self._sequences, 0, self._trace)
        builder.add(outputs, producer)
        self._sequences |= builder.sequences
        read = []
        for one in builder.records:
            offset = self._offsets.get((one.topic, one.partition), 0)
            self._offsets[one.topic, one.partition] = offset + 1
            read.append(Read(one.topic, one.partition, offset, 0, one.key, one.value, one.headers))
        return read


def main(days: int, per_day: int) -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        names = tuple(f"f{i}" for i in range(FEATURES))
        scenes.FEATURES = names
        ref = scenes.package(data_dir, random.normal(size=(10_000, FEATURES)))
        runtime: Runtime[Any] = Runtime(
            service, Settings(data_dir=data_dir), service.settings(), KafkaBus("127.0.0.1:1", "bench")
        )
        runtime.store.open()
        runtime._lease_epoch = runtime.store.take_lease(runtime.instance, runtime.clock.now_us(), 10**12, is_gone) or 0
        batch = runtime._batch
        batch.load()
        log = Log()

        def fact(payload: Payload, producer: str) -> list[Read]:
            return log.records(producer, [Derived(payload, Cause("bench", scenes.START_US, "bench"))])

        declared = scenes.declared()
        assert isinstance(declared, ModelDeclared)
        batch.consume(fact(declared, "registry"))
        batch.consume(fact(scenes.run_completed(ref), "trainer") + fact(scenes.champion_changed(ref), "registry"))
        batches: list[list[Read]] = []
        number = 0
        for hour in range(days * 24):
            start = scenes.START_US + hour * HOUR_US
            vectors: list[Derived | Watermark] = []
            predictions: list[Derived | Watermark] = []
            labels: list[Derived | Watermark] = []
            for i in range(per_day // 24):
                number += 1
                at = start + i * HOUR_US // (per_day // 24)
                one = scenes.vector(number, at, random.normal(size=FEATURES).round(4).tolist())
                for kept, made in (
                    (vectors, one),
                    (predictions, scenes.prediction(number, at, float(random.random()))),
                    (labels, scenes.label(number, at, float(random.normal()))),
                ):
                    cause = Cause(made.id, at, made.id)
                    kept.append(Derived(made.data, cause, id=made.id, stream=made.stream, watermark_us=at))
            end = start + HOUR_US
            vectors.append(Watermark(VectorComputed, scenes.MODEL, end))
            predictions.append(Watermark(PredictionMade, scenes.MODEL, end))
            labels.append(Watermark(LabelAccepted, f"{scenes.STREAM}#label", end))
            read = log.records("feature", vectors) + log.records("serving", predictions) + log.records("ingest", labels)
            batches.append(read)
        started, wall = time.process_time(), time.perf_counter()
        for read in batches:
            batch.consume(read)
        cpu, wall = time.process_time() - started, time.perf_counter() - wall
        records = 3 * number
        print(f"{records:,} records up to {format_us(end)} in {len(batches):,} batches")
        print(
            f"{cpu:.1f} CPU-s, {wall:.1f} s: {cpu / records * 1e6:.1f} µs a record, {cpu / len(batches) * 1e3:.2f} ms a batch"
        )
        runtime.store.close()


if __name__ == "__main__":
    main(*(int(one) for one in [*sys.argv[1:], "40", "900"][:2]))
