"""Topic to topic: raw records checked and accepted, against a stream engine that only passes them on."""

from __future__ import annotations

import asyncio
from typing import Final

from evenkeel.libs.process.ports import free_port
from tests.bench.bench import Bench, Unavailable, cpu_seconds, run_peer, start_service, tail
from tests.bench.figures import OURS, Target
from tests.bench.streams import ACCEPTED, Outlet, broker, declare_stream, fill, listening, make_topic

EVENTS: Final = 150_000
CUSTOMERS: Final = 10_000
SECONDS: Final = 60.0
QUIX: Final = "quixstreams"
PLAIN: Final = "bench.plain"
"""The same records without heartbeats, which only Evenkeel understands."""
TITLE: Final = "Ingest, topic to topic"
METHOD: Final = (
    f"{EVENTS:,} JSON records of 300 bytes on 3 partitions, written beforehand. Evenkeel's ingest checks every field, the "
    "id against those seen, and time; makes watermarks, ids, digests and envelopes; and commits all that in SQLite before "
    "it publishes. quixstreams' bare map decodes, calls a function that does nothing, and encodes. Events a second are "
    "the broker's append times of the outgoing records; events a second and core count the process's own CPU time after "
    "its imports, whatever else runs on the machine."
)
TARGETS: Final = (
    Target("accepted, per core", 100_000),
    Target("accepted, per core", 2, QUIX),
)


async def run(bench: Bench) -> None:
    async with broker(bench) as address:
        bench.say(f"writing {EVENTS:,} records")
        await fill(address, EVENTS, CUSTOMERS)
        await fill(address, EVENTS, CUSTOMERS, PLAIN)
        await declare_stream(address)
        for number in range(bench.rounds):
            await _ours(bench, address, number)
            await bench.attempt(QUIX, lambda number=number: _quix(bench, address, number))  # type: ignore[misc]


async def _ours(bench: Bench, address: str, number: int) -> None:
    data_dir, port = bench.folder / f"ingest-{number}", free_port()
    outlet = Outlet(address, ACCEPTED)
    await outlet.open()
    process = start_service("ingest", data_dir, address, port)
    try:
        before = await listening(port, process, data_dir / "logs" / "ingest.log")
        if not await outlet.complete(EVENTS, SECONDS, lambda: process.is_running):
            said = tail(data_dir / "logs" / "ingest.log")
            raise Unavailable(f"{await outlet.count()} of {EVENTS} records came out: {said}")
        spent = cpu_seconds(process.pid) - before
        found = await outlet.measure()
    finally:
        process.stop(10)
        await outlet.close()
    if found.events != EVENTS:
        raise Unavailable(f"{found.events} of {EVENTS} records were accepted.")
    _record(bench, OURS, found.per_second, spent, number)


async def _quix(bench: Bench, address: str, number: int) -> None:
    python = bench.environment(QUIX)
    topic, log = f"bench.mapped-{number}", bench.folder / f"quix-{number}.log"
    await make_topic(address, topic)
    outlet = Outlet(address, topic)
    await outlet.open()
    try:
        arguments = (address, PLAIN, topic, str(EVENTS), bench.folder / f"quix-{number}", f"quix-{number}")
        spent = (await asyncio.to_thread(run_peer, python, "quix_map.py", log, SECONDS, *arguments))["cpu_seconds"]
        found = await outlet.measure()
    finally:
        await outlet.close()
    if found.events < EVENTS:
        raise Unavailable(f"{found.events} of {EVENTS} records came out: {tail(log)}")
    _record(bench, QUIX, found.per_second, spent, number)


def _record(bench: Bench, name: str, per_second: float, spent: float, number: int) -> None:
    bench.record("accepted", "events/s", name, per_second)
    bench.record("accepted, per core", "events/s of CPU", name, EVENTS / spent)
    bench.say(f"round {number + 1}: {name} {per_second:,.0f} events/s, {spent / EVENTS * 1e6:.1f} µs CPU each")
