"""`python -m tests.chaos.soak --minutes 15 --rate 3000`: a steady load, a kill every 30 s, and what grows meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2
import numpy as np

from evenkeel.apps.cli.supervisor import BROKER, Supervisor
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.clock import SECOND_US
from tests.chaos.load import Load, Shop
from tests.chaos.quiet import restless, until_quiet
from tests.chaos.run import account, loaded_system

KILL_EVERY_SECONDS: Final = 30.0
STEP_SECONDS: Final = 2.0
SAMPLE_EVERY_SECONDS: Final = 5.0
RECOVERY_LIMIT_SECONDS: Final = 60.0

Series = dict[str, list[tuple[float, float]]]


@dataclass
class Soak:
    """What a soak measured. A slope is that of the fitted line, in the series' unit a minute."""

    minutes: float
    rate: float
    seed: int
    step_seconds: float
    kills: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    series: Series = field(default_factory=lambda: defaultdict(list))
    records: int = 0
    measured_rate: float = 0.0
    recovery_seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def slopes(self) -> dict[str, dict[str, float]]:
        """Of each series: first, last, largest value and slope; the first fifth, while caches fill, is left out of the slope."""
        found = {}
        for name, points in sorted(self.series.items()):
            settled = points[len(points) // 5 :]
            if len(settled) > 2:
                seconds, values = np.array(settled).T
                slope = float(np.polyfit(seconds / 60, values, 1)[0])
                all_values = [value for _, value in points]
                found[name] = {
                    "first": all_values[0],
                    "last": all_values[-1],
                    "largest": max(all_values),
                    "slope_per_minute": round(slope, 3),
                }
        return found

    def as_json(self) -> str:
        return json.dumps({**vars(self), "slopes": self.slopes()}, indent=2)

    def text(self) -> str:
        lines = [
            f"{self.minutes:g} minutes, seed {self.seed}: {self.records} acknowledged records, "
            f"{self.measured_rate:.0f}/s (asked: {self.rate:g}/s, an order every {self.step_seconds:g} s of event time), "
            f"kills {dict(self.kills)}, quiet {self.recovery_seconds:.1f} s after the load",
            "",
            "| what | first | last | largest | slope a minute |",
            "|---|---|---|---|---|",
        ]
        for name, row in self.slopes().items():
            values = (f"{row[key]:.1f}" for key in ("first", "last", "largest", "slope_per_minute"))
            lines.append(f"| {name} | {' | '.join(values)} |")
        lines += ["", "violations:", *(f"- {one}" for one in self.violations or ["none"])]
        return "\n".join(lines)


def sample(system: Supervisor) -> dict[str, float]:
    """Memory and descriptors of each process, write-ahead logs on disk."""
    found = {}
    for name, pid in system.pids.items():
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):  # it ends just now
            status = Path(f"/proc/{pid}/status").read_text()
            found[f"{name} memory, MB"] = int(status.split("VmRSS:")[1].split()[0]) / 1024
            found[f"{name} descriptors"] = float(len(os.listdir(f"/proc/{pid}/fd")))
    for wal in system.data_dir.glob("*.db-wal"):
        with suppress(FileNotFoundError):
            found[f"{wal.name}, MB"] = wal.stat().st_size / 2**20
    return found


async def _outboxes(http: httpx2.AsyncClient, urls: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for what in await restless(http, urls):
        service, _, rest = what.partition(": ")
        if rest.startswith("evenkeel_outbox_rows"):
            found[f"{service} outbox, rows"] = float(rest.rpartition(" ")[2])
    return {f"{service} outbox, rows": 0.0 for service in urls} | found


async def soak(
    folder: Path, minutes: float, rate: float, seed: int, kill_every_seconds: float, step_seconds: float
) -> Soak:
    """A process that was killed starts small again, which its slope shows: look at those that were not, too."""
    report, dice = Soak(minutes, rate, seed, step_seconds), random.Random(seed)
    shop = Shop(int(step_seconds * SECOND_US))
    async with loaded_system(folder, seed, rate, _say, shop=shop) as (system, load):
        tasks = [asyncio.create_task(load.produce()), asyncio.create_task(load.ask(0.1))]
        started = time.monotonic()
        before = load.records
        load.flow()
        await _sampled(report, system, load, dice, started, kill_every_seconds)
        await load.hold()
        seconds = time.monotonic() - started
        healed_at = time.monotonic()
        report.recovery_seconds, left = await until_quiet(system.urls, healed_at, RECOVERY_LIMIT_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        report.records = load.records - before
        report.measured_rate = report.records / seconds
        report.violations += [f"14: {RECOVERY_LIMIT_SECONDS:.0f} s after the load: {what}" for what in left]
        report.violations += load.refused + await account(system, load)
    return report


async def _sampled(
    report: Soak, system: Supervisor, load: Load, dice: random.Random, started: float, kill_every_seconds: float
) -> None:
    next_kill, end = started + kill_every_seconds, started + report.minutes * 60
    async with httpx2.AsyncClient(timeout=5) as http:
        while (now := time.monotonic()) < end:
            if now >= next_kill and end - now > kill_every_seconds / 2:
                target = dice.choice((BROKER, *SERVICES))
                await asyncio.to_thread(system.kill, target)
                report.kills[target] += 1
                next_kill += kill_every_seconds
            values = sample(system) | await _outboxes(http, system.urls)
            for name, value in values.items():
                report.series[name].append((round(now - started, 1), round(value, 3)))
            _say(f"{now - started:4.0f} s: {load.records} records, {sum(report.kills.values())} kills")
            await asyncio.sleep(max(0.0, SAMPLE_EVERY_SECONDS - (time.monotonic() - now)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=3_000.0, help="events and labels a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-every", type=float, default=KILL_EVERY_SECONDS, help="seconds between two kills")
    parser.add_argument(
        "--step", type=float, default=STEP_SECONDS, help="seconds of event time from one order to the next"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, every sample in it")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="evenkeel-soak-"))
    report = asyncio.run(soak(folder, options.minutes, options.rate, options.seed, options.kill_every, options.step))
    print(report.as_json() if options.json else report.text())
    if report.violations:
        _say(f"the data folder is kept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
