"""`evenkeel demo`: a year of flights through the real system, and an account of it at the end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.apps.demo.flights import read_flights
from evenkeel.apps.demo.replay import MODEL, DemoError, Replay
from evenkeel.apps.demo.screen import line, render
from evenkeel.apps.demo.summary import summarise
from evenkeel.apps.demo.watch import Seen

FEWEST_DAYS: Final = 20


def demo(
    days: int = 365,
    data_dir: Path = Path(".evenkeel/demo"),
    keep: bool = False,
    hold: bool = True,
    port_base: int = 8100,
    broker_port: int = 9092,
    as_json: bool = False,
    at_end: Callable[[Supervisor], None] | None = None,
) -> dict[str, Any]:
    """Run it all; returns the summary, which is also `demo-summary.json` in the data folder.

    `at_end` is called once the account is given, while everything still runs.
    """
    console = Console(stderr=as_json)
    if not FEWEST_DAYS <= days <= 365:
        raise DemoError(f"--days is {days}, expected {FEWEST_DAYS} to 365: the first model comes after two weeks")
    if data_dir.exists():
        shutil.rmtree(data_dir)

    def say(text: str) -> None:
        if console.is_terminal:
            console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    supervisor = Supervisor(
        data_dir,
        port_base=port_base,
        broker_port=broker_port,
        on_notice=lambda notice: say(f"{notice.process}: {notice.message}"),
    )
    say("reading the year")
    flights = read_flights(days)
    started = time.monotonic()
    supervisor.start()
    try:
        replay = Replay(Seen(MODEL, flights), supervisor, hold)
        replay.started = started
        asyncio.run(_shown(replay, console, say))
        summary = summarise(replay, say)
        if at_end is not None:
            at_end(supervisor)
        if keep:
            say("kept running: " + ", ".join(f"{name} {url}" for name, url in supervisor.urls.items()))
            say(f"token: {supervisor.token}   Ctrl-C stops everything")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
        return summary
    finally:
        supervisor.stop()


async def _shown(replay: Replay, console: Console, say: Callable[[str], None]) -> None:
    run = asyncio.ensure_future(replay.run())
    try:
        if console.is_terminal:
            with Live(render(replay), console=console, refresh_per_second=4, transient=False) as live:
                while not run.done():
                    live.update(render(replay))
                    await asyncio.wait([run], timeout=0.5)
        else:
            while not run.done():
                say(line(replay))
                await asyncio.wait([run], timeout=5.0)
        await run
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
