"""`evenkeel demo`: a year of flights through the real system, and an account of it at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

import httpx2
import orjson
from rich.console import Console
from rich.live import Live

from libs.cli.supervisor import Supervisor
from libs.clock import DAY_US
from libs.demo.client import Asked, ask_for_ever
from libs.demo.flights import SCHEDULED, Flights, read_flights
from libs.demo.producers import Producers
from libs.demo.screen import Gauges, Pace, line, render
from libs.demo.watch import Seen, Watcher
from libs.errors import EvenkeelError

MODEL: Final = "flight-delay"
BEHIND_US: Final = DAY_US
SETTLE_SECONDS: Final = 120.0


class DemoError(EvenkeelError):
    """The replay cannot go on; the message says what to look at."""


@dataclass
class Replay:
    """One run of the demo, as the screen and the summary see it."""

    seen: Seen
    supervisor: Supervisor
    hold: bool
    asked: Asked = field(default_factory=Asked)
    gauges: Gauges = field(default_factory=Gauges)
    producers: Producers | None = None
    pace: float = 0.0
    held: str = ""
    started: float = field(default_factory=time.monotonic)
    started_wall_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    replayed_seconds: float = 0.0
    _event: dict[str, Any] | None = None

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def sent(self) -> int:
        return self.producers.sent if self.producers else 0

    async def run(self) -> None:
        """Declare, replay, and wait until everything has come to rest."""
        await self._declare()
        watcher = Watcher(self.supervisor.broker, self.supervisor.data_dir, self.seen)
        tasks = [asyncio.create_task(watcher.follow()), asyncio.create_task(self._look())]
        tasks.append(asyncio.create_task(self._ask()))
        try:
            async with Producers(self.supervisor.broker) as self.producers:
                await _unless_failed(self.producers.replay(self.seen.flights, self._gate), tasks)
            await _unless_failed(self._settle(), tasks)
            self.replayed_seconds = self.elapsed_seconds
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _declare(self) -> None:
        text = resources.files("libs.demo").joinpath("flight-delay.yaml").read_bytes()
        async with self._http("registry") as http:
            response = await http.post("/v1/declarations", content=text, headers={"content-type": "application/yaml"})
            if response.status_code >= 300:
                raise DemoError(f"the declaration was refused: {response.text}")
        async with self._http("ingest") as http:
            for _ in range(600):
                known = (await http.get("/v1/streams")).json()
                if "flights" in json.dumps(known) and "weather" in json.dumps(known):
                    return
                await asyncio.sleep(0.05)
        raise DemoError("ingest did not take the declared streams within 30 s: see ingest.log in the data folder")

    def _http(self, service: str) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.supervisor.token}"}
        return httpx2.AsyncClient(base_url=self.supervisor.urls[service], headers=headers, timeout=20)

    async def _gate(self, hour_end_us: int) -> None:
        """Open while feature and monitor are at most a day behind and no turn of the loop is open."""
        seen = self.seen
        while True:
            if self.hold and seen.turn_open:
                self.held = "the gate is shut: a turn of the loop is open"
            elif seen.feature_us and hour_end_us - seen.feature_us > BEHIND_US:
                self.held = ""
            elif seen.monitor_us and hour_end_us - seen.monitor_us > 2 * BEHIND_US:
                # The monitor tells where it is by whole windows of a day, so a day behind shows as up to two.
                self.held = ""
            else:
                self.held = ""
                return
            await asyncio.sleep(0.005)

    async def _look(self) -> None:
        pace = Pace()
        async with httpx2.AsyncClient(timeout=5) as http:
            while True:
                self.pace = pace.update(self.sent)
                await self.gauges.refresh(http, self.supervisor.urls)
                await asyncio.sleep(1.0)

    async def _ask(self) -> None:
        while not any(turn.outcome == "activated" for turn in self.seen.turns.values()):
            await asyncio.sleep(0.05)
        await ask_for_ever(
            self.supervisor.urls["serving"],
            self.supervisor.token,
            MODEL,
            self.asked,
            lambda: self.seen.last_values,
            self._next_event,
        )

    def _next_event(self) -> dict[str, Any] | None:
        hour_us = self.producers.hour_us if self.producers else 0
        departures = self.seen.flights.departure_us
        number = int(departures.searchsorted(hour_us)) - 1
        if number < 0:
            return None
        return self._scheduled.get(self.seen.flights.ids[number])

    @property
    def _scheduled(self) -> dict[str, dict[str, Any]]:
        if self._event is None:
            self._event = _LazyEvents(self.seen.flights)
        return self._event

    async def _settle(self) -> None:
        """Until feature and monitor are past everything, no turn is open and nobody is behind."""
        deadline = time.monotonic() + SETTLE_SECONDS
        calm = 0
        while calm < 3:
            await asyncio.sleep(0.3)
            at_rest = self.seen.feature_us > self.seen.flights.end_us and not self.seen.turn_open
            at_rest = at_rest and all(behind == 0 for behind in self.gauges.lag.values())
            at_rest = at_rest and self.seen.counts["vectors"] >= len(self.seen.flights.ids)
            calm = calm + 1 if at_rest else 0
            if time.monotonic() > deadline:
                raise DemoError(f"the system did not come to rest in {SETTLE_SECONDS:.0f} s: behind {self.gauges.lag}")


class _LazyEvents(dict[str, dict[str, Any]]):
    """Scheduled flights by id, decoded when asked for."""

    def __init__(self, flights: Flights) -> None:
        super().__init__()
        self._raw = {record.id: record.value for record in flights.records if record.topic == SCHEDULED}

    def get(self, key: str, default: Any = None) -> Any:
        value = self._raw.get(key)
        return default if value is None else orjson.loads(value)


async def _unless_failed(work: Any, tasks: list[asyncio.Task[Any]]) -> None:
    """Wait for the work, but not if one of the tasks beside it has died: its error is the demo's then."""
    main = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([main, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if main not in done:
        main.cancel()
        await asyncio.gather(main, return_exceptions=True)
    for task in done:
        task.result()


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
    from libs.demo.summary import summarise

    console = Console(stderr=as_json)
    if not 2 <= days <= 365:
        raise DemoError(f"--days is {days}, expected 2 to 365")
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
