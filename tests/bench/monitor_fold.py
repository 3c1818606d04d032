"""What monitor costs per record, in its own transaction loop on SQLite: decode, merge, join, measure, commit.

python -m tests.bench.monitor_fold [days] [records of a kind per day]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.ingest import LabelAccepted
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.clock import HOUR_US, SystemClock
from evenkeel.libs.service import Cause, Derived, Watermark
from evenkeel.services.monitor.service import service
from tests.harness import Harness, ManualClock
from tests.records import ReadRecord, Topics
from tests.unit.monitor import scenes

FEATURES = 38


def main(days: int, per_day: int) -> None:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        names = tuple(f"f{i}" for i in range(FEATURES))
        scenes.FEATURES = names
        ref = scenes.package(data_dir, random.normal(size=(10_000, FEATURES)))
        harness: Harness[Any] = Harness(service, data_dir, clock=ManualClock(SystemClock().now_us()))
        log = Topics()

        def fact(payload: Payload, producer: str) -> list[ReadRecord]:
            return log.say(producer, [Derived(payload, Cause("bench", scenes.START_US, "bench"))])

        declared = scenes.declared()
        assert isinstance(declared, ModelDeclared)
        harness.consume(fact(declared, "registry"))
        harness.consume(fact(scenes.run(ref), "trainer") + fact(scenes.champion(ref), "registry"))
        batches: list[list[ReadRecord]] = []
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
                    kept.append(Derived(made.data, cause, id=made.id, stream=made.stream))
            end = start + HOUR_US
            vectors.append(Watermark(VectorComputed, scenes.MODEL, end))
            predictions.append(Watermark(PredictionMade, scenes.MODEL, end))
            labels.append(Watermark(LabelAccepted, f"{scenes.STREAM}#label", end))
            read = log.say("feature", vectors) + log.say("serving", predictions) + log.say("ingest", labels)
            batches.append(read)
        started, wall = time.process_time(), time.perf_counter()
        for read in batches:
            harness.consume(read)
        cpu, wall = time.process_time() - started, time.perf_counter() - wall
        records = 3 * number
        print(f"{records:,} records up to {format_us(end)} in {len(batches):,} batches")
        print(
            f"{cpu:.1f} CPU-s, {wall:.1f} s: {cpu / records * 1e6:.1f} µs a record, {cpu / len(batches) * 1e3:.2f} ms a batch"
        )
        harness.close()


if __name__ == "__main__":
    main(*(int(one) for one in [*sys.argv[1:], "40", "900"][:2]))
