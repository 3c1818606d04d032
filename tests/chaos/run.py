"""A run: faults one after the other under load, each followed by the time until quiet; at the end, what is wrong."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from evenkeel.apps.cli.supervisor import BROKER, Notice, Supervisor
from evenkeel.contracts.ingest import EventAccepted, EventRejected, LabelAccepted
from evenkeel.contracts.registry import ChampionChanged
from evenkeel.contracts.serving import PredictionMade
from evenkeel.contracts.trainer import RetrainDecided, RunCompleted, RunFailed
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.errors import Retry
from evenkeel.libs.process.ports import free_port, free_port_base
from tests.chaos.faults import Fault, Faults, planned
from tests.chaos.load import ORDERS, RETURNS, Load, Shop
from tests.chaos.quiet import until_quiet
from tests.invariants.oracle import Oracle
from tests.running import each_event, eventually, read_events

RECOVERY_LIMIT_SECONDS: Final = 60.0
"""Invariant 14."""


@dataclass(frozen=True)
class Cycle:
    fault: Fault
    recovery_seconds: float


@dataclass
class Report:
    """What a run did and found."""

    seed: int
    cycles: list[Cycle] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    records: int = 0
    distinct: int = 0
    predictions: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    champions: int = 0
    setup_seconds: float = 0.0
    chaos_seconds: float = 0.0
    check_seconds: float = 0.0

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Count, median and 95th percentile of the time to recover, by kind of fault and in all."""
        groups: dict[str, list[float]] = defaultdict(list)
        for cycle in self.cycles:
            of_broker = " of the broker" if cycle.fault.target == "kafka" else ""
            groups[cycle.fault.kind + of_broker].append(cycle.recovery_seconds)
        groups = {kind: groups[kind] for kind in sorted(groups)} | {"all": [c.recovery_seconds for c in self.cycles]}
        return {
            kind: {
                "cycles": len(seconds),
                "median_seconds": round(statistics.median(seconds), 2),
                "p95_seconds": round(_percentile(seconds, 0.95), 2),
                "max_seconds": round(max(seconds), 2),
            }
            for kind, seconds in groups.items()
            if seconds
        }

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "by_kind": self.by_kind()}, indent=2)

    def table(self) -> str:
        """The table of docs/reliability.md."""
        lines = ["| fault | cycles | recovered in, median | p95 | longest |", "|---|---|---|---|---|"]
        for kind, row in self.by_kind().items():
            seconds = (f"{row[name]:.1f} s" for name in ("median_seconds", "p95_seconds", "max_seconds"))
            lines.append(f"| {kind} | {row['cycles']} | {' | '.join(seconds)} |")
        return "\n".join(lines)

    def text(self) -> str:
        found = "\n".join(f"- {violation}" for violation in self.violations) or "none"
        return (
            f"{len(self.cycles)} cycles, seed {self.seed}: {self.chaos_seconds:.0f} s of faults under load, "
            f"{self.setup_seconds:.0f} s to set up, {self.check_seconds:.0f} s to check\n"
            f"{self.records} acknowledged records ({self.distinct} distinct), {self.predictions} answered predictions, "
            f"{self.champions} champions\nclient's answers by status (0: no answer): {self.statuses}\n\n"
            f"{self.table()}\n\nviolations: {found}"
        )


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


SHOP: Final = Shop()


@asynccontextmanager
async def loaded_system(
    folder: Path,
    seed: int,
    rate: float,
    say: Callable[[str], None],
    *,
    broker: str | None = None,
    shop: Shop = SHOP,
) -> AsyncIterator[tuple[Supervisor, Load]]:
    """Broker, seven services and their load, with a first champion answering."""

    def notice(notice: Notice) -> None:
        if notice.what not in ("progress", "starting"):
            say(f"{notice.process}: {notice.message}")

    system = Supervisor(folder, port_base=free_port_base(), broker_port=free_port(), broker=broker, on_notice=notice)
    await asyncio.to_thread(system.start)
    load = Load(system, seed, rate, shop)
    try:
        await load.declare()
        say("waiting for a first champion")
        await load.warm_up()
        yield system, load
    finally:
        await load.close()
        await asyncio.to_thread(system.stop)


async def run(folder: Path, cycles: int, seed: int, rate: float, say: Callable[[str], None]) -> Report:
    """All of it, in `folder`."""
    report = Report(seed)
    dice = random.Random(seed)
    started = time.monotonic()
    async with loaded_system(folder, seed, rate, say) as (system, load):
        report.setup_seconds = round(time.monotonic() - started, 1)
        started = time.monotonic()
        faults = Faults(system)
        tasks = [asyncio.create_task(load.produce()), asyncio.create_task(load.ask())]
        for number in range(1, cycles + 1):
            fault = planned(dice)
            recovery_seconds, restless = await _cycle(fault, faults, load, system)
            report.cycles.append(Cycle(fault, round(recovery_seconds, 2)))
            say(f"cycle {number} of {cycles}: {fault.kind} {fault.target}: quiet after {recovery_seconds:.1f} s")
            if restless:
                report.violations += [f"14: cycle {number}, {fault}: {what}" for what in restless]
                break
            for task in tasks:
                if task.done():
                    task.result()
        await load.hold()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        report.chaos_seconds = round(time.monotonic() - started, 1)
        started = time.monotonic()
        await load.finish()
        await until_quiet(system.urls, time.monotonic(), RECOVERY_LIMIT_SECONDS)
        await eventually(
            lambda: _no_run_is_open(system.broker), "every training run to end", 2 * RECOVERY_LIMIT_SECONDS
        )
        _, restless = await until_quiet(system.urls, time.monotonic(), RECOVERY_LIMIT_SECONDS)
        report.violations += [f"14: at the end: {what}" for what in restless]
        report.violations += load.refused
        say("checking")
        report.violations += await account(system, load)
        oracle = Oracle(system.broker, system.data_dir, system.urls, system.token, load.sent, load.acknowledged)
        found = await asyncio.to_thread(oracle.violations)
        report.violations += [f"{violation.invariant}: {violation.detail}" for violation in found]
        report.champions = len({event.id for event in await read_events(system.broker, ChampionChanged)})
        report.records, report.predictions = load.records, len(load.predictions)
        report.distinct = sum(map(len, load.acknowledged.values()))
        report.statuses = dict(sorted(load.statuses.items()))
        report.check_seconds = round(time.monotonic() - started, 1)
    return report


async def _no_run_is_open(broker: str) -> bool:
    """The end of the load may be what a decision to train waited for."""
    decided = {e.data.run_id for e in await read_events(broker, RetrainDecided) if e.data.retrain}
    ended = {e.data.run_id for payload in (RunCompleted, RunFailed) for e in await read_events(broker, payload)}
    return decided <= ended


async def _cycle(fault: Fault, faults: Faults, load: Load, system: Supervisor) -> tuple[float, list[str]]:
    load.flow()
    load.is_noisy = fault.kind == "noise"
    await asyncio.sleep(fault.after_seconds)
    await asyncio.to_thread(faults.do, fault)
    healed_at = time.monotonic()
    load.is_noisy = False
    await load.hold()
    if fault.target == BROKER:
        # Services that have nothing to say or to read may not notice that it is gone.
        await eventually(partial(_answers, system), "the broker to answer", RECOVERY_LIMIT_SECONDS)
    return await until_quiet(system.urls, healed_at, RECOVERY_LIMIT_SECONDS)


async def _answers(system: Supervisor) -> bool:
    try:
        return bool(await KafkaBus(system.broker, "chaos").partition_counts([ORDERS]))
    except Retry:
        return False


async def account(system: Supervisor, load: Load) -> list[str]:
    """Nothing lost, nothing twice, nothing given away unrecorded: by what the topics hold, whoever wrote it."""
    found: list[str] = []
    for topic, payload in ((ORDERS, EventAccepted), (RETURNS, LabelAccepted)):
        ids = {event.id: event.data.event_id.encode() async for event in each_event(system.broker, payload)}
        accepted = Counter(ids.values())
        found += [
            f"1: {topic}: {one.decode()} was acknowledged and is not accepted"
            for one in sorted(load.acknowledged[topic] - accepted.keys())[:5]
        ]
        found += [
            f"1: {topic}: {one.decode()} was never sent" for one in sorted(accepted.keys() - load.sent[topic])[:5]
        ]
        found += [f"2: {topic}: {one.decode()} was accepted {n} times" for one, n in accepted.items() if n > 1][:5]
    rules = [event.data.rule async for event in each_event(system.broker, EventRejected)]
    wrongly = Counter(rule for rule in rules if rule != "duplicate")
    found += [f"12: {n} good records were rejected by the rule {rule}" for rule, n in wrongly.items()]
    asked = {e.id async for e in each_event(system.broker, PredictionMade) if e.data.origin == "request"}
    lost = load.predictions - asked
    found += [f"predictions: {len(lost)} were given and never recorded, such as {min(lost)}"] if lost else []
    return found
