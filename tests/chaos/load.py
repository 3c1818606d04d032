"""The system under load: a shop's orders and returns through two doors, and a client that asks for predictions.

Everything is generated from numbers, so that what was sent is known without keeping it: order `n` always looks the same.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import httpx2
import orjson

from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.clock import DAY_US, HOUR_US, SECOND_US, format_us, parse_us
from evenkeel.libs.errors import Retry
from evenkeel.libs.runtime.outputs import partition_of
from tests.running import Producer

MODEL: Final = "order-returned"
ORDERS: Final = "shop.orders"
RETURNS: Final = "shop.returns"
START_US: Final = parse_us("2026-01-05T00:00:00Z")
CHUNK: Final = 100
UNDER_WAY: Final = 3
"""So many chunks, with the oldest that is not acknowledged, may be sent: fewer orders than what the disorder allows."""
BEHIND: Final = 360
"""A return follows its order by so many orders; that much event time is also the declared disorder."""
FIRST_DAYS: Final = 4
"""Enough for the first model as declared, whose datasets are cut at midnight."""
BY_HTTP: Final = 10
"""Orders of a chunk that take the HTTP door."""
DECLARATION: Final = """
streams:
  orders:
    topic: shop.orders
    id: order_id
    time: ordered_at
    disorder: {disorder}
    keys: [customer]
    fields:
      customer: {type: string}
      amount: {type: number}
    label:
      topic: shop.returns
      id: order_id
      joins: order_id
      time: decided_at
      horizon: 12h
      fields:
        returned: {type: boolean}
models:
  order-returned:
    task: binary
    stream: orders
    label: returned
    features:
      - fields: [amount]
      - {of: orders.amount, by: [customer], compute: [count, mean], over: [6h, 24h]}
    candidates: [logistic]
    promotion: {confidence: 0.5}
    retraining:
      triggers: [schedule, drift]
      first_after: {rows: 500, span: 1d}
      cooldown: 1d
      schedule: 3d
      holdout: 6h
      max_rows: 3000
    monitoring: {windows: [1d], min_samples: 200, cooldown: 2d}
"""


class Sent(NamedTuple):
    topic: str
    id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Shop:
    """Order `n` always looks the same. `step_us` is the event time between two orders."""

    step_us: int = 60 * SECOND_US

    @property
    def declaration(self) -> str:
        return DECLARATION.replace("{disorder}", f"{BEHIND * self.step_us // SECOND_US}s")

    @property
    def first_orders(self) -> int:
        return FIRST_DAYS * DAY_US // self.step_us

    def order(self, number: int) -> Sent:
        amount = 5 + number * 7919 % 1009 / 10
        customer = f"c{number * 31 % 50}"
        record_id = f"o-{number}"
        body = {"order_id": record_id, "ordered_at": self.time(number), "customer": customer, "amount": amount}
        return Sent(ORDERS, record_id.encode(), orjson.dumps(body))

    def order_return(self, number: int) -> Sent:
        """The return of order `number`; dear orders come back, with some noise."""
        is_noise = number * 104729 % 100 < 15
        returned = (number * 7919 % 1009 > 500) != is_noise
        record_id = f"o-{number}"
        body = {"order_id": record_id, "decided_at": self.time(number + BEHIND), "returned": returned}
        return Sent(RETURNS, record_id.encode(), orjson.dumps(body))

    def time(self, number: int) -> str:
        return format_us(START_US + number * self.step_us)


class Writer:
    """A Kafka producer with endless patience."""

    def __init__(self, broker: str) -> None:
        self._bus = KafkaBus(broker, "load")
        self._partitions: dict[str, int] = {}

    async def write(self, records: Sequence[Sent]) -> None:
        """Returns once each is acknowledged; a record may be there twice then, as with any producer."""
        while True:
            try:
                await self._bus.publish(await self._outgoing(records))
                return
            except Retry:
                await asyncio.sleep(0.2)

    async def _outgoing(self, records: Sequence[Sent]) -> list[OutgoingRecord]:
        if unknown := {record.topic for record in records} - self._partitions.keys():
            self._partitions |= await self._bus.partition_counts(unknown)
            if not unknown <= self._partitions.keys():
                raise Retry("ingest has not made the raw topics yet")
        return [
            OutgoingRecord(r.topic, partition_of(r.id, self._partitions[r.topic]), r.id, r.value, []) for r in records
        ]

    async def close(self) -> None:
        await self._bus.stop()


class Load:
    """Producer and client of one system. `rate` is events and labels a second while it flows."""

    def __init__(self, system: Supervisor, seed: int, rate: float, shop: Shop) -> None:
        self._system, self._rate, self._shop = system, rate, shop
        self._random = random.Random(seed)
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {system.token}"}, timeout=httpx2.Timeout(10, pool=30)
        )
        self._writer = Writer(system.broker)
        self._next = 0
        self._flowing, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._chunks: deque[asyncio.Task[None]] = deque()
        """From the oldest one under way on."""
        self.is_noisy = False
        """Whether each record is sent three times, shuffled within the declared disorder."""
        self.sent: dict[str, set[bytes]] = defaultdict(set)
        self.acknowledged: dict[str, set[bytes]] = defaultdict(set)
        self.records = 0
        """Acknowledged records, repeats included."""
        self.statuses: Counter[int] = Counter()
        """What the client got from serving; 0: no answer."""
        self.predictions: set[str] = set()
        """Ids of the predictions that were given to the client."""
        self.refused: list[str] = []
        """Answers that nobody should have got: 4xx for good records, 5xx other than 503."""

    # -- life -----------------------------------------------------------------------------------------------------------

    async def declare(self) -> None:
        answer = await self._http.post(
            self._system.urls["registry"] + "/v1/declarations",
            content=self._shop.declaration,
            headers={"content-type": "application/yaml"},
        )
        if answer.status_code >= 300:
            raise AssertionError(f"the declaration was refused: {answer.text}")
        await self._until(self._is_declared, 30)

    async def _is_declared(self) -> bool:
        answer = await self._http.get(self._system.urls["ingest"] + "/v1/streams")
        return answer.status_code == 200 and b"shop.orders" in answer.content

    async def _until(self, check: Callable[[], Any], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not await check():
                await asyncio.sleep(0.1)

    async def warm_up(self, seconds: float = 240.0) -> None:
        """Send what a first model needs, as fast as it goes, and wait until it answers."""
        rate, self._rate = self._rate, max(self._rate, 1_500.0)
        producing = asyncio.create_task(self.produce())
        self.flow()
        try:
            await self._until(self._has_enough, seconds)
            await self.hold()
            await self._until(self._answers, seconds)
        finally:
            await self.hold()
            producing.cancel()
            self._rate = rate
        self.statuses.clear()

    async def _has_enough(self) -> bool:
        return self._next >= self._shop.first_orders

    async def _answers(self) -> bool:
        return await self.ask_once() == 200

    async def close(self) -> None:
        await self._http.aclose()
        await self._writer.close()

    # -- producing ------------------------------------------------------------------------------------------------------

    def flow(self) -> None:
        self._flowing.set()

    async def hold(self) -> None:
        """Stop, once what is under way is acknowledged."""
        self._flowing.clear()
        await self._idle.wait()

    async def produce(self) -> None:
        """Chunk by chunk at the rate, while it flows. What a fault held up is made up for, as far as there is room for
        more chunks under way."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if not self._flowing.is_set():
                await self._flowing.wait()
                due = loop.time()
            if len(self._chunks) >= UNDER_WAY:
                await asyncio.wait([self._chunks[0]])
                continue
            self._begin_chunk()
            due += 2 * CHUNK / self._rate
            await asyncio.sleep(max(0.0, due - loop.time()))

    def _begin_chunk(self) -> None:
        chunk = asyncio.create_task(self._send_chunk())
        self._chunks.append(chunk)
        self._idle.clear()
        chunk.add_done_callback(self._end_chunk)

    def _end_chunk(self, chunk: asyncio.Task[None]) -> None:
        while self._chunks and self._chunks[0].done():
            self._chunks.popleft()
        if not chunk.cancelled() and (error := chunk.exception()) is not None:
            self.refused.append(f"the load itself failed: {error!r}")
        if not self._chunks:
            self._idle.set()

    async def _send_chunk(self) -> None:
        numbers = range(self._next, self._next + CHUNK)
        orders = [self._shop.order(number) for number in numbers]
        returns = [self._shop.order_return(n - BEHIND) for n in numbers if n >= BEHIND]
        self._next += CHUNK
        by_kafka = [*orders[BY_HTTP:], *returns]
        by_http = orders[:BY_HTTP]
        if self.is_noisy:
            by_kafka = by_kafka * 3
            by_http = by_http * 3
            self._random.shuffle(by_kafka)
            self._random.shuffle(by_http)
        for record in (*orders, *returns):
            self.sent[record.topic].add(record.id)
        await asyncio.gather(self._writer.write(by_kafka), self._post(by_http))
        for record in (*orders, *returns):
            self.acknowledged[record.topic].add(record.id)
        self.records += len(by_kafka) + len(by_http)

    async def _post(self, records: Sequence[Sent]) -> None:
        """To ingest's HTTP door, with the same ids again after anything but 202."""
        body = b"[" + b",".join(record.value for record in records) + b"]"
        while True:
            with suppress(httpx2.HTTPError):
                answer = await self._http.post(
                    self._system.urls["ingest"] + "/v1/streams/orders/events",
                    content=body,
                    headers={"content-type": "application/json"},
                )
                if answer.status_code == 202:
                    return
                if answer.status_code != 503:
                    self.refused.append(f"ingest answered {answer.status_code} for good records: {answer.text[:300]}")
                elif "retry-after" not in answer.headers:
                    self.refused.append(f"ingest answered 503 without Retry-After: {answer.text[:300]}")
            await asyncio.sleep(0.2)

    async def post_once(self) -> httpx2.Response:
        """One order at ingest's HTTP door, which is not tried again."""
        record = self._shop.order(self._next)
        self._next += 1
        self.sent[record.topic].add(record.id)
        answer = await self._http.post(
            self._system.urls["ingest"] + "/v1/streams/orders/events",
            content=record.value,
            headers={"content-type": "application/json"},
        )
        if answer.status_code == 202:
            self.acknowledged[record.topic].add(record.id)
        return answer

    async def finish(self) -> None:
        """Say that nothing more will come, so that every merge lets go of what it holds."""
        last_us = START_US + (self._next + BEHIND) * self._shop.step_us
        end = format_us(last_us + 20 * DAY_US + HOUR_US)
        async with Producer(self._system.broker) as producer:
            for topic in (ORDERS, RETURNS):
                await producer.heartbeat(topic, end)

    # -- asking ---------------------------------------------------------------------------------------------------------

    async def ask(self, every_seconds: float = 0.05) -> None:
        """Ask for predictions while it flows, one after the other."""
        while True:
            await self._flowing.wait()
            await self.ask_once()
            await asyncio.sleep(every_seconds)

    async def ask_once(self) -> int:
        """The answer's status; 0: there was none."""
        number = self._random.randrange(1000)
        asked = {"ordered_at": self._shop.time(self._next), "order_id": f"asked-{number}"}
        event = orjson.loads(self._shop.order(number).value) | asked
        status = 0
        with suppress(httpx2.HTTPError):
            answer = await self._http.post(
                f"{self._system.urls['serving']}/v1/models/{MODEL}/predict", json={"event": event}
            )
            status = answer.status_code
            if status == 200:
                self.predictions.add(answer.json()["prediction_id"])
            elif status not in (404, 503):
                self.refused.append(f"serving answered {status}: {answer.text[:300]}")
        self.statuses[status] += 1
        return status
