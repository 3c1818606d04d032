"""Topic to topic: windows of 10,000 entities with durable state."""

from __future__ import annotations

import asyncio
from typing import Final

from evenkeel.libs.process.ports import free_port
from tests.bench.bench import Bench, Unavailable, cpu_seconds, run_peer, start_service, tail
from tests.bench.figures import OURS, Target
from tests.bench.streams import (
    ACCEPTED,
    VECTORS,
    Outlet,
    broker,
    declare_model,
    declare_stream,
    fill,
    listening,
    make_topic,
)

EVENTS: Final = 150_000
PEER_EVENTS: Final = 20_000
CUSTOMERS: Final = 10_000
SECONDS: Final = 60.0
QUIX: Final = "quixstreams"
BY_CUSTOMER: Final = "bench.by-customer"
TITLE: Final = "Windows, topic to topic"
METHOD: Final = (
    f"Count, sum, mean and standard deviation over 1 m, 1 h and 24 h for {CUSTOMERS:,} customers. Evenkeel's feature "
    f"service turns {EVENTS:,} accepted events into as many vectors, in event-time order, with windows, the vectors that "
    f"wait for labels and the outbox committed in SQLite. quixstreams gets {PEER_EVENTS:,} such events, already "
    "partitioned by customer, and keeps sliding windows in RocksDB with changelog topics, one fold per window for all four "
    "aggregates, each window's result a record. Throughput and CPU as for ingest."
)
TARGETS: Final = (
    Target("events through windows, per core", 60_000),
    Target("events through windows, per core", 15, QUIX),
)


async def run(bench: Bench) -> None:
    async with broker(bench) as address:
        bench.say(f"writing {EVENTS:,} records and letting ingest accept them")
        await fill(address, EVENTS, CUSTOMERS)
        await fill(address, PEER_EVENTS, CUSTOMERS, BY_CUSTOMER, by_customer=True)
        await declare_model(address)
        await declare_stream(address)
        await _accept(bench, address)
        for number in range(bench.rounds):
            await _ours(bench, address, number)
            await bench.attempt(QUIX, lambda number=number: _quix(bench, address, number))  # type: ignore[misc]


async def _accept(bench: Bench, address: str) -> None:
    data_dir, port = bench.folder / "ingest", free_port()
    outlet = Outlet(address, ACCEPTED)
    await outlet.open()
    process = start_service("ingest", data_dir, address, port)
    try:
        if not await outlet.complete(EVENTS, SECONDS, lambda: process.is_running):
            raise Unavailable(f"ingest accepted {await outlet.count()}: {tail(data_dir / 'logs' / 'ingest.log')}")
    finally:
        process.stop(10)
        await outlet.close()


async def _ours(bench: Bench, address: str, number: int) -> None:
    data_dir, port = bench.folder / f"feature-{number}", free_port()
    outlet = Outlet(address, VECTORS)
    await outlet.open()
    process = start_service("feature", data_dir, address, port)
    try:
        before = await listening(port, process, data_dir / "logs" / "feature.log")
        if not await outlet.complete(EVENTS, SECONDS, lambda: process.is_running):
            said = tail(data_dir / "logs" / "feature.log")
            raise Unavailable(f"{await outlet.count()} of {EVENTS} vectors came out: {said}")
        spent = cpu_seconds(process.pid) - before
        found = await outlet.measure()
    finally:
        process.stop(10)
        await outlet.close()
    if found.events != EVENTS:
        raise Unavailable(f"{found.events} vectors of {EVENTS} events.")
    _record(bench, OURS, found.per_second, EVENTS / spent, number)


async def _quix(bench: Bench, address: str, number: int) -> None:
    python = bench.environment(QUIX)
    topic, log = f"bench.windows-{number}", bench.folder / f"quix-{number}.log"
    await make_topic(address, topic)
    outlet = Outlet(address, topic)
    await outlet.open()
    try:
        arguments = (address, BY_CUSTOMER, topic, str(PEER_EVENTS), bench.folder / f"quix-{number}", f"quix-{number}")
        spent = (await asyncio.to_thread(run_peer, python, "quix_windows.py", log, SECONDS, *arguments))["cpu_seconds"]
        found = await outlet.measure()
    finally:
        await outlet.close()
    results = 3 * PEER_EVENTS
    if found.events < results:
        raise Unavailable(f"{found.events} of {results} results came out: {tail(log)}")
    _record(bench, QUIX, found.per_second * PEER_EVENTS / found.events, PEER_EVENTS / spent, number)


def _record(bench: Bench, name: str, per_second: float, per_core: float, number: int) -> None:
    bench.record("events through windows", "events/s", name, per_second)
    bench.record("events through windows, per core", "events/s of CPU", name, per_core)
    bench.say(f"round {number + 1}: {name} {per_second:,.0f} events/s, {1e6 / per_core:.1f} µs CPU each")
