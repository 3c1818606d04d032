"""The whole way of an event: raw record, vector, prediction, audit log."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

import orjson

from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.libs.process.ports import free_port_base
from tests.bench.bench import Bench, Unavailable, cpu_seconds
from tests.bench.figures import OURS, Target
from tests.bench.http_load import call, metrics, request
from tests.bench.streams import MODEL, PLAN, START, Outlet, declare_model, declare_stream, fill
from tests.makers import champion_changed
from tests.running import eventually, publish_events
from tests.tiny_packages import table_of, tiny_package, tiny_table

SERVICES: Final = ("ingest", "feature", "serving", "monitor", "governance")
LOGGED: Final = ("ingest.event-accepted.v1", "feature.vector-computed.v1", "serving.prediction-made.v1")
LEAST_EVENTS: Final = 30_000
LEAST_PER_SECOND: Final = 600
"""A system slower than this is not waited for."""
TITLE: Final = "Pipeline, end to end"
METHOD: Final = (
    "Raw records of 300 bytes, written beforehand, through ingest, feature (12 windows of the event's customer), serving "
    "(logistic regression), monitor and governance, each a process of its own as `evenkeel up` starts them, until every "
    "accepted event, vector and prediction is in the audit log. CPU counts these five processes; the broker's own stands "
    "apart. Labels do not come. There is no peer that does all of this; keys are customers: each event "
    "names one of them by chance, and there are as many events as keys, 30,000 at least."
)
TARGETS: Final = (Target("10,000 keys, raw to audit", 6_000), Target("100,000 keys, raw to audit", 6_000))


async def run(bench: Bench) -> None:
    for number in range(bench.rounds):
        for keys in bench.keys:
            await _measure(bench, keys, max(LEAST_EVENTS, keys), number)


async def _measure(bench: Bench, keys: int, events: int, number: int) -> None:
    data_dir = bench.folder / f"{keys}-{number}"
    base = free_port_base(8)
    commands = {name: (sys.executable, "-m", "evenkeel.services", name) for name in SERVICES}
    supervisor = Supervisor(data_dir, port_base=base, broker_port=base + 8, commands=commands)
    bench.say(f"round {number + 1}: {keys:,} keys, starting the system")
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, data_dir, ignore_errors=True)
        stack.callback(supervisor.stop)
        await asyncio.to_thread(supervisor.start)
        address = supervisor.broker
        await fill(address, events, keys)
        await _promote(supervisor, address)
        bench.say(f"round {number + 1}: {keys:,} keys, {events:,} events go")
        outlets = [Outlet(address, topic) for topic in LOGGED]
        for outlet in outlets:
            await outlet.open()
            stack.push_async_callback(outlet.close)
        pids = dict(supervisor.pids)
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        started = asyncio.get_running_loop().time()
        await declare_stream(address)
        seconds = await _logged(supervisor, outlets, events) - started
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        for outlet, topic in zip(outlets, LOGGED, strict=True):
            found = await outlet.measure()
            if found.events != events:
                raise Unavailable(f"{found.events} records in {topic}, {events} events went in.")
    broker_seconds = spent.pop("kafka")
    bench.record(f"{keys:,} keys, raw to audit", "events/s", OURS, events / seconds)
    total = sum(spent.values())
    bench.record(f"{keys:,} keys, per core", "events/s of CPU", OURS, events / total)
    bench.record(f"{keys:,} keys, CPU", "µs an event", OURS, total / events * 1e6, less_is_better=True)
    for name, one in [*spent.items(), ("the broker, apart", broker_seconds)]:
        bench.record(f"{keys:,} keys, CPU of {name}", "µs an event", OURS, one / events * 1e6, less_is_better=True)
    bench.say(f"round {number + 1}: {events / seconds:,.0f} events/s, {total / events * 1e6:.0f} µs CPU each")


async def _promote(supervisor: Supervisor, address: str) -> None:
    """A champion on these features, as registry would name it, activated."""
    rows = tiny_table()
    wide = rows.rows[:, [0] * len(PLAN.names)]
    table = table_of(rows.event_time_us, rows.label_time_us, rows.label, wide)
    changes: dict[str, Any] = {"model": MODEL, "view_version": PLAN.view_version, "features": PLAN.names}
    ref = tiny_package(supervisor.data_dir / "artifacts", supervisor.data_dir / "keys", table=table, **changes)
    changed = champion_changed(ref, model=MODEL, view_version=PLAN.view_version, cause_id="bench")
    await declare_model(address)
    await publish_events(address, "registry", [(changed, {"time": START})])
    ask = request("GET", f"/v2/models/{MODEL}/ready", authorization=f"Bearer {supervisor.token}")

    async def answers() -> bool:
        status, _ = await call(supervisor.ports["serving"], ask)
        return status == 200

    await eventually(answers, "the champion to answer")


async def _logged(supervisor: Supervisor, outlets: list[Outlet], events: int) -> float:
    """When governance had logged as many records of each topic as the broker holds, and all predictions were there."""
    clock = asyncio.get_running_loop().time
    seconds = 60 + events / LEAST_PER_SECOND
    until = clock() + seconds
    while clock() < until:
        ends = [await outlet.count() for outlet in outlets]
        if min(ends) >= events:
            found = await metrics(supervisor.ports["governance"])
            consumed = [
                found.get(f'evenkeel_events_consumed_total{{service="governance",topic="{topic}"}}', 0)
                for topic in LOGGED
            ]
            if consumed == ends:
                done_at = clock()
                await asyncio.sleep(0.5)
                if [await outlet.count() for outlet in outlets] == ends:
                    return done_at
        await asyncio.sleep(0.1)
    raise Unavailable(f"not all was logged after {seconds:.0f} s: {orjson.dumps(ends).decode()} of {events} each.")
