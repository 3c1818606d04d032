"""One full drift check: 30 features, 10,000 reference rows, 1,000 new ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np

from tests.bench.bench import Bench, Unavailable, Worker
from tests.bench.figures import OURS, Target, shown

TITLE: Final = "Drift check"
METHOD: Final = (
    "30 normally distributed features, 10,000 reference rows, 1,000 new rows, five of the features shifted. Evenkeel: what "
    "monitor does when a window closes (its rows counted into the profile's bins, PSI and p-values); the profile is made "
    "once, in training, like NannyML's fit, which stands beside it. Evidently takes both tables each time, and scipy "
    "tests each feature (two-sample Kolmogorov-Smirnov)."
)
TARGETS: Final = (
    Target("full check", 5.0, at_most=True),
    Target("full check", 500.0, "evidently"),
    Target("full check", 5.0, "nannyml"),
)
SECONDS: Final = 2.0
PEERS: Final = ("scipy", "nannyml", "evidently")


async def run(bench: Bench) -> None:
    random = np.random.default_rng(0)
    data = bench.folder / "rows.npz"
    shift = np.where(np.arange(30) < 5, 0.5, 0.0)
    np.savez(data, reference=random.normal(size=(10_000, 30)), current=random.normal(size=(1_000, 30)) + shift)
    workers: dict[str, Worker] = {}
    try:
        for name in (OURS, *PEERS):

            async def start(name: str = name) -> None:
                python = Path(sys.executable) if name == OURS else bench.environment(name)
                bench.say(f"starting {name}")
                workers[name] = Worker(python, f"drift_{name.lower()}.py", bench.folder / f"{name}.log", data)

            await bench.attempt(name, start)
        for number in range(bench.rounds):
            for name, worker in workers.items():

                async def measure(name: str = name, worker: Worker = worker) -> None:
                    found = worker.ask(seconds=SECONDS)["ms"]
                    bench.record("full check", "ms", name, found, less_is_better=True)
                    bench.say(f"round {number + 1}: {name} {shown(found)} ms")
                    if name in (OURS, "nannyml"):
                        found = worker.ask(seconds=SECONDS / 4, fit=True)["ms"]
                        bench.record("reference, once", "ms", name, found, less_is_better=True)

                await bench.attempt(name, measure)
    finally:
        for worker in workers.values():
            worker.close()
    if OURS not in workers:
        raise Unavailable(bench.result.missing[OURS])
