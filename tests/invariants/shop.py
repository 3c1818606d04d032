"""A small system at work: a shop's visits and sales, in event time, through as many of the seven services as a test needs.

`patched` makes a copy of the product with a bug in it; services of a system run from there, in processes of their own.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
from confluent_kafka import Producer

from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.process.ports import free_port_base
from tests.invariants.oracle import Answer, Exit, Oracle

T = TypeVar("T")
START: Final = datetime(2020, 3, 1, tzinfo=UTC)
FLIP_DAY: Final = 7
"""From this day on, who used to buy does not, and who did not does."""
VISITS, SALES = "shop.visits", "shop.sales"
PARTITIONS: Final = 2
WAIT_SECONDS: Final = 180.0
ROOT: Final = Path(__file__).parents[2]

DECLARATION: Final = """
streams:
  visits:
    topic: shop.visits
    id: visit
    time: at
    lateness: 2d
    fields:
      shop: {type: category, values: [north, south, west]}
      amount: {type: number, min: -1000, max: 1000}
      note: {type: string}
    label:
      topic: shop.sales
      id: visit
      joins: visit
      time: at
      horizon: 12h
      fields:
        shop: {type: category, values: [north, south, west]}
        bought: {type: boolean}
        spent: {type: number}
models:
"""
MODEL: Final = """
  {name}:
    task: binary
    stream: visits
    label: bought
    candidates: [logistic]
    features:
      - fields: [amount]
      - {{time: at, parts: [hour, weekday]}}
      - categories: [shop]
      - {{of: visits.amount, by: [shop], compute: [count, sum, mean, std, min, max, last], over: [6h, 2d]}}
      - {{of: visits.label.spent, by: [shop], compute: [mean, time_since_last], over: [24h]}}
      - {{of: visits, compute: [count], over: [24h]}}
    promotion: {{confidence: 0.5{promotion}}}
    retraining: {{first_after: {{rows: 420, span: 5d}}, cooldown: 3d, holdout: 36h, max_span: 4d}}
    monitoring: {{windows: [1d], min_samples: 30, cooldown: 2d}}
"""


def declared(*models: tuple[str, str]) -> str:
    """The declaration with these models; each with what is added to its promotion policy."""
    return DECLARATION + "".join(MODEL.format(name=name, promotion=promotion) for name, promotion in models)


def patched(folder: Path, *patches: tuple[str, str, str]) -> Path:
    """A copy of the product with patches (file, text that is there once, text instead); AssertionError if one does not fit."""
    for part in ("contracts", "deploy", "evenkeel", "libs", "services"):
        shutil.copytree(ROOT / part, folder / part, symlinks=True)
    for name, before, after in patches:
        path = folder / name
        text = path.read_text()
        assert text.count(before) == 1, f"{name} has {text.count(before)} times: {before}"
        path.write_text(text.replace(before, after))
    return folder


class Shop:
    """A running system and its producer. What is sent is remembered, for the oracle."""

    def __init__(self, data_dir: Path, broker: str, services: Sequence[str] = SERVICES, code: Path = ROOT) -> None:
        self.supervisor = Supervisor(
            data_dir,
            port_base=free_port_base(),
            broker=broker,
            commands={name: (sys.executable, "-m", "evenkeel.services", name) for name in services},
            # The code to run comes first, and the folder that the tests run in does not count.
            environment={
                "PYTHONPATH": str(code),
                "PYTHONSAFEPATH": "1",
                "EVENKEEL_GOVERNANCE_CHECKPOINT_SECONDS": "1",
            },
        )
        self.sent: dict[str, set[bytes]] = defaultdict(set)
        self.answers: list[Answer] = []
        self._producer = Producer({"bootstrap.servers": broker, "acks": "all", "linger.ms": 5, "log_level": 0})
        self.time = START
        """Up to where time has come, by the last heartbeat."""
        self._last_visit: dict[str, Any] = {}
        self._random = random.Random(7)

    @property
    def oracle(self) -> Oracle:
        supervisor = self.supervisor
        return Oracle(supervisor.broker, supervisor.data_dir, supervisor.urls, supervisor.token, self.sent)

    def http(self, service: str) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.supervisor.token}"}
        return httpx2.Client(base_url=self.supervisor.urls[service], headers=headers, timeout=30)

    def get(self, service: str, path: str) -> Any:
        with self.http(service) as http:
            return http.get(path).json()

    def post(self, service: str, path: str, body: Any) -> Any:
        with self.http(service) as http:
            answer = http.post(path, json=body)
            assert answer.status_code < 300, answer.text
            return answer.json()

    def declare(self, text: str) -> None:
        """And wait until ingest takes records."""
        with self.http("registry") as http:
            answer = http.post("/v1/declarations", content=text, headers={"content-type": "application/yaml"})
            assert answer.status_code == 200, answer.text
        until(lambda: {VISITS, SALES} <= self._producer.list_topics().topics.keys(), "ingest to take the streams")

    # -- the producer -------------------------------------------------------------------------------------------------

    def write(self, topic: str, record_id: str, value: bytes, partition: int | None = None) -> None:
        """One record; it counts as sent under this id."""
        self.sent[topic].add(record_id.encode())
        chosen = zlib.crc32(record_id.encode()) % PARTITIONS if partition is None else partition
        self._producer.produce(topic, value, key=record_id.encode(), partition=chosen)

    def day(self, day: int, visits: int = 72) -> None:
        """A day's visits, each with its sale two hours later, and a heartbeat at its end."""
        step = timedelta(days=1) / visits
        for number in range(visits):
            at = START + timedelta(days=day) + number * step
            visit, shop = f"v{day}-{number}", self._random.choice(["north", "south", "west"])
            amount = round(self._random.gauss(0.0 if day < FLIP_DAY else 5.0, 10.0), 3)
            likes = amount > 0 if day < FLIP_DAY else amount < 5.0
            bought = likes if self._random.random() < 0.9 else not likes
            event = {"visit": visit, "at": _text(at), "shop": shop, "amount": amount, "note": "  as it is  "}
            sale = {
                "visit": visit,
                "at": _text(at + timedelta(hours=2)),
                "shop": shop,
                "bought": bought,
                "spent": amount,
            }
            self._last_visit = event
            self.write(VISITS, visit, json.dumps(event).encode())
            self.write(SALES, visit, json.dumps(sale).encode())
        self.heartbeat(START + timedelta(days=day + 1))

    def heartbeat(self, at: datetime) -> None:
        """Nothing earlier will come."""
        self.time = at
        for topic in (VISITS, SALES):
            for partition in range(PARTITIONS):
                header: list[tuple[str, str | bytes | None]] = [("evenkeel-heartbeat", _text(at).encode())]
                self._producer.produce(topic, None, partition=partition, headers=header)
        self.flush()

    def days(self, first: int, last: int, visits: int = 72) -> None:
        for day in range(first, last + 1):
            self.day(day, visits)

    def finish(self, day: int) -> None:
        """Time goes on far enough that nothing waits for anything, and all comes to rest."""
        self.heartbeat(START + timedelta(days=day + 10))
        found = self.oracle.at_rest(WAIT_SECONDS)
        assert not found, found

    def mischief(self) -> None:
        """What producers and strangers do: no JSON, a repeat, another content under a known id, a record of nobody's."""
        again = self._last_visit | {"amount": 999.0}  # of an id that is old enough only the time would be refused
        self.write(VISITS, "broken", b"  {no json\n", 0)
        self.write(VISITS, again["visit"], json.dumps(again).encode())
        self._producer.produce("ingest.event-accepted.v1", b"  hello?\n", key=b"stranger", headers=[("a", b"b")])
        self.flush()

    def half_good(self) -> str:
        """The body of a call with a good visit and a bad one."""
        good = {"visit": "posted", "at": _text(self.time + timedelta(hours=1)), "shop": "north", "amount": 1.0}
        return json.dumps([good, good | {"visit": "bad", "amount": "much"}])

    def flush(self) -> None:
        left = self._producer.flush(WAIT_SECONDS)
        assert left == 0, f"{left} records were not acknowledged"

    # -- the loop -----------------------------------------------------------------------------------------------------

    def champion(self, model: str) -> dict[str, Any]:
        """The champion as serving has it; empty before there is one."""
        models = self.get("serving", "/v1/models")["models"]
        return next((m["champion"] or {} for m in models if m["model"] == model), {})

    def until_epoch(self, model: str, epoch: int) -> None:
        until(lambda: self.champion(model).get("epoch", 0) >= epoch, f"epoch {epoch} of {model}")

    @contextlib.contextmanager
    def asking(self, model: str) -> Iterator[None]:
        """A client asks all the time; what it got is in `answers`."""
        enough = threading.Event()

        def ask() -> None:
            event = {"visit": "asked", "at": _text(START + timedelta(days=5)), "shop": "west", "amount": 3.5}
            with self.http("serving") as http:
                while not enough.wait(0.02):
                    try:
                        answer = http.post(f"/v1/models/{model}/predict", json={"event": event})
                        self.answers.append(Answer(answer.status_code, answer.json()))
                    except httpx2.HTTPError as error:
                        self.answers.append(Answer(0, {"error": str(error)}))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()

    def terminate(self) -> dict[str, Exit]:
        """SIGTERM to every service: how each of them ended."""
        supervisor = self.supervisor
        supervisor._stopping.set()  # nothing is started again
        processes = dict(supervisor._processes)
        began = time.monotonic()
        for process in processes.values():
            process.terminate()
        ended = {}
        for name, process in processes.items():
            in_time = process.wait(max(0.0, began + 20 - time.monotonic()))
            ended[name] = Exit(process.exit_code if in_time else None, time.monotonic() - began)
        return ended


def until(check: Callable[[], T], what: str, seconds: float = WAIT_SECONDS) -> T:
    """Poll other processes; AssertionError names what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)
    return found


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
