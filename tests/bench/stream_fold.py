"""What ingest and feature cost per event in their own transaction loop on SQLite, without broker and client, and on what.

python -m tests.bench.stream_fold ingest|feature [events] [customers]
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from evenkeel.contracts.declaration import Declaration
from evenkeel.contracts.registry import StreamDeclared
from evenkeel.libs.clock import DAY_US, SystemClock, parse_us
from evenkeel.libs.runtime.outputs import OutputBuilder, partition_of
from evenkeel.libs.service import Cause, Derived
from evenkeel.libs.telemetry.tracing import Tracing
from evenkeel.services.__main__ import collect_seldom
from evenkeel.services.feature.service import service as feature
from evenkeel.services.ingest.service import service as ingest
from tests.bench.streams import LABELS, MODEL, PARTITIONS, RAW, SPEC, START_US, STREAM, orders
from tests.feature_log import Log
from tests.harness import Harness, ManualClock
from tests.records import ReadRecord

BATCH: Final = 2_000
SHOWN: Final = 25


def raw_records(events: int, customers: int) -> list[ReadRecord]:
    trace = Tracing("bench", "bench").batch()
    builder = OutputBuilder("registry", "bench", {}, START_US, trace)
    builder.add([Derived(StreamDeclared.of(name="orders", spec=STREAM), Cause("bench", START_US, "bench"))], "bench")
    declared = builder.records[0]
    found = [ReadRecord(declared.topic, declared.partition, 0, declared.key, declared.value, declared.headers)]
    ends = [0] * PARTITIONS
    for number, (_, value) in enumerate(orders(events, customers)):
        key = b"%d" % number
        partition = partition_of(key, PARTITIONS)
        found.append(ReadRecord(RAW, partition, ends[partition], key, value, (), number))
        ends[partition] += 1
    return found


def accepted_records(events: int, customers: int) -> list[ReadRecord]:
    log = Log(Declaration(streams={"orders": STREAM}, models={MODEL: SPEC}))
    log.declare(["orders"], [MODEL])
    log.watermark("orders#label", START_US + 2 * DAY_US)
    for number, (_, value) in enumerate(orders(events, customers)):
        fields = orjson.loads(value)
        time_us = parse_us(fields.pop("ordered_at"))
        log.event("orders", fields.pop("order_id"), time_us, fields)
        if number % BATCH == 0:  # as ingest does behind each of its batches
            log.watermark("orders", time_us)
    log.close(START_US + 2 * DAY_US)
    return log.records


def fold(harness: Harness[Any], records: Sequence[ReadRecord]) -> dict[str, int]:
    """What came out, by topic."""
    out: dict[str, int] = {}
    for start in range(0, len(records), BATCH):
        for record in harness.consume(records[start : start + BATCH]).records:
            out[record.topic] = out.get(record.topic, 0) + 1
    return out


def main(name: str, events: int, customers: int) -> None:
    service, make = {"ingest": (ingest, raw_records), "feature": (feature, accepted_records)}[name]
    records = make(events, customers)
    collect_seldom()
    for profile in (None, cProfile.Profile()):
        with tempfile.TemporaryDirectory() as folder:
            harness: Harness[Any] = Harness(service, Path(folder), clock=ManualClock(SystemClock().now_us()))
            if name == "ingest":
                harness.consume(records[:1])
                harness.context.assigned({RAW: PARTITIONS, LABELS: PARTITIONS})
            started = time.process_time()
            if profile is None:
                out = fold(harness, records)
                spent = time.process_time() - started
                print(f"{name}: {spent / events * 1e6:.1f} µs CPU an event; out: {out}")
            else:
                profile.runcall(fold, harness, records)
                pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(SHOWN)
            harness.close()


if __name__ == "__main__":
    if sys.argv[1:2] not in (["ingest"], ["feature"]):
        sys.exit(__doc__)
    main(sys.argv[1], *(int(one) for one in [*sys.argv[2:], "60000", "10000"][:2]))
