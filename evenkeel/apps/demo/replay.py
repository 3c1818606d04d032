"""One replay of the year: the gate that opens hour by hour, the client that asks meanwhile, and what is seen of them."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import orjson

from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.apps.demo.client import Asked, ask_for_ever
from evenkeel.apps.demo.flights import SCHEDULED, Flights
from evenkeel.apps.demo.producers import Producers
from evenkeel.apps.demo.watch import Seen, Watcher
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.client.errors import ServiceError
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.errors import EvenkeelError

_LAG: Final = re.compile(r"^evenkeel_consumer_lag_records\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
MODEL: Final = "flight-delay"
BEHIND_US: Final = DAY_US
SETTLE_SECONDS: Final = 120.0


class DemoError(EvenkeelError):
    """The replay cannot go on; the message says what to look at."""


@dataclass
class Gauges:
    """What the services tell about themselves on /metrics."""

    lag: dict[str, int] = field(default_factory=dict)

    async def refresh(self, client: AsyncClient) -> None:
        for name in SERVICES:
            try:
                metrics = await client.service(name).metrics()
                self.lag[name] = round(sum(float(value) for value in _LAG.findall(metrics)))
            except ServiceError:
                self.lag[name] = -1


class Pace:
    """Records per second over the last seconds."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def update(self, count: int) -> float:
        now = time.monotonic()
        self._points = [point for point in self._points if now - point[0] < 5] + [(now, count)]
        (first, before), (last, after) = self._points[0], self._points[-1]
        return (after - before) / (last - first) if last > first else 0.0


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
        text = resources.files("evenkeel.apps.demo").joinpath("flight-delay.yaml").read_text("utf-8")
        async with self._client(20.0) as client:
            try:
                await client.registry.apply(text, filename="flight-delay.yaml")
            except ServiceError as error:
                raise DemoError(f"the declaration was not taken: {error}") from error
            for _ in range(600):
                known = {stream.stream for stream in (await client.ingest.streams()).streams}
                if {"flights", "weather"} <= known:
                    return
                await asyncio.sleep(0.05)
        raise DemoError("ingest did not take the declared streams within 30 s: see ingest.log in the data folder")

    def _client(self, timeout_seconds: float, attempts: int = 3) -> AsyncClient:
        urls, token = self.supervisor.urls, self.supervisor.token
        return AsyncClient(urls, token=token, timeout_seconds=timeout_seconds, attempts=attempts)

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
        async with self._client(5.0, attempts=1) as client:
            while True:
                self.pace = pace.update(self.sent)
                await self.gauges.refresh(client)
                await asyncio.sleep(1.0)

    async def _ask(self) -> None:
        while not any(turn.outcome == "activated" for turn in self.seen.turns.values()):
            await asyncio.sleep(0.05)
        # Each request counts: none is sent a second time.
        async with self._client(10.0, attempts=1) as client:
            await ask_for_ever(client, MODEL, self.asked, lambda: self.seen.last_values, self._next_event)

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
