"""A whole system in its own processes, small and fast: two weeks of invented flights, and a turn of the loop.

Flights are late by their distance; after a while distances are others and the rule is reversed, so that inputs drift, the
champion becomes worse, and a model that was fitted since is better.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evenkeel import Client
from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.contracts.http.registry import ChampionEpoch
from evenkeel.contracts.http.serving import ServedChampion

MODEL = "flight-delay"
PER_DAY = 240
START = datetime(2013, 1, 1, tzinfo=UTC)
DECLARATION = """
streams:
  flights:
    topic: flights.scheduled
    id: flight_id
    time: scheduled_departure
    keys: [origin]
    disorder: 5m
    fields:
      flight_id: {type: string, required: true}
      scheduled_departure: {type: time, required: true}
      origin: {type: category, values: [EWR, JFK, LGA], required: true}
      distance: {type: number, min: 0, max: 20000}
    label:
      topic: flights.arrived
      id: flight_id
      joins: flight_id
      time: landed_at
      horizon: 6h
      fields:
        arr_delay: {type: number, min: -600, max: 3000}
models:
  flight-delay:
    task: binary
    stream: flights
    label: arr_delay > 15
    candidates: [logistic]
    features:
      - fields: [distance]
      - {of: flights.distance, by: [origin], compute: [count, mean], over: [24h]}
    promotion: {confidence: 0.5, bake: 1h}
    retraining:
      first_after: {rows: 800, span: 3d}
      cooldown: 12h
      budget_per_day: 10
      holdout: 1d
    monitoring: {windows: [24h], min_samples: 50, decay_tolerance: 1.0, cooldown: 12h}
"""


def within(check: Callable[[], Any], seconds: float) -> Any:
    """What `check` gives as soon as that is true, or what it gives after these seconds."""
    deadline = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < deadline:
        time.sleep(0.1)  # another process has to come to rest; there is no event to wait for
    return found


def until(check: Callable[[], Any], what: str, seconds: float = 180) -> Any:
    found = within(check, seconds)
    assert found, f"waited {seconds:.0f} s for {what}"
    return found


class SmallLoop:
    """Producers, and an operator with every role."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        # A service that has just started says for some seconds that it cannot yet.
        self.client = Client(supervisor.urls, token=supervisor.token, attempts=100)
        self._random = random.Random(7)

    @property
    def data_dir(self) -> Path:
        return self.supervisor.data_dir

    def declare(self) -> None:
        self.client.registry.apply(DECLARATION)
        until(lambda: self.client.ingest.streams().streams, "ingest to know the stream")

    def fly(self, days: Sequence[int], *, reversed_rule: bool = False) -> None:
        """All flights of these days and their landings; then nothing earlier comes."""
        for day in days:
            flights, landings = [], []
            for number in range(PER_DAY):
                departs = START + timedelta(days=day, minutes=number * 24 * 60 / PER_DAY)
                distance = self._random.uniform(200, 1200) + (3000 if reversed_rule else 0)
                is_late = (distance % 3000 > 700) != reversed_rule
                flight = f"{departs:%Y%m%d%H%M}-UA{number}-EWR-IAH"
                flights.append(
                    {
                        "flight_id": flight,
                        "scheduled_departure": departs.isoformat(),
                        "origin": self._random.choice(["EWR", "JFK", "LGA"]),
                        "distance": distance,
                    }
                )
                landed = departs + timedelta(hours=1)
                delay = 40.0 if is_late and self._random.random() < 0.9 else -5.0
                landings.append({"flight_id": flight, "landed_at": landed.isoformat(), "arr_delay": delay})
            self.client.ingest.send_events("flights", flights)
            self.client.ingest.send_labels("flights", landings)
            self.heartbeat(day + 1)

    def heartbeat(self, day: int) -> None:
        moment = (START + timedelta(days=day)).isoformat()
        self.client.ingest.heartbeat("flights", moment, kind="event")
        self.client.ingest.heartbeat("flights", moment, kind="label")

    def has_changed(self) -> bool:
        """Whether a second champion serves."""
        champion = self.champion()
        return champion is not None and champion.epoch >= 2

    def champion(self) -> ServedChampion | None:
        return self.client.serving.models().models[0].champion

    def turn(self) -> ChampionEpoch:
        """The whole loop once: a first champion, drift, and the champion that follows from it."""
        self.declare()
        self.fly(range(5))
        until(self.champion, "the first champion to serve")
        self.fly(range(5, 10), reversed_rule=True)
        # How soon drift is seen depends on which flights the first champion was there to score. If so soon that what was
        # fitted knows little of the new world, it is refused, and the next signal wants more of that.
        for day in range(10, 16):
            if within(self.has_changed, 20):
                break
            self.fly([day], reversed_rule=True)
        until(self.has_changed, "the champion that follows from drift")
        champion = self.client.registry.champion(MODEL).champion
        assert champion is not None
        return champion


def small_loop(folder: Path, ports: tuple[int, int], **environment: str) -> Iterator[SmallLoop]:
    base, broker_port = ports
    with Supervisor(folder, port_base=base, broker_port=broker_port, environment=environment) as supervisor:
        yield SmallLoop(supervisor)
