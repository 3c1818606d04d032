"""The system under load: a shop's orders and returns through two doors, and a client that asks for predictions.

Everything is generated from numbers, so that what was sent is known without keeping it: order `n` always looks the same.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import httpx2
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from libs.cli.supervisor import Supervisor
from libs.clock import DAY_US, HOUR_US, format_us, parse_us
from libs.testing import Producer

MODEL: Final = "order-returned"
ORDERS: Final = "shop.orders"
RETURNS: Final = "shop.returns"
START_US: Final = parse_us("2026-01-05T00:00:00Z")
STEP_US: Final = 60_000_000
"""Event time between two orders: a chunk of them stays well within the declared disorder."""
CHUNK: Final = 40
LABEL_BEHIND: Final = 360
"""A return follows its order by so many orders, six hours of event time."""
FIRST_ORDERS: Final = 4 * 24 * 60
"""Four days: enough for the first model as declared, whose datasets are cut at midnight."""
BY_HTTP: Final = 4
"""Orders of a chunk that take the HTTP door."""
DECLARATION: Final = """
streams:
  orders:
    topic: shop.orders
    id: order_id
    time: ordered_at
    disorder: 2h
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


def order(number: int) -> Sent:
    amount = 5 + number * 7919 % 1009 / 10
    customer = f"c{number * 31 % 50}"
    record_id = f"o-{number}"
    body = {"order_id": record_id, "ordered_at": _time(number), "customer": customer, "amount": amount}
    return Sent(ORDERS, record_id.encode(), orjson.dumps(body))


def order_return(number: int) -> Sent:
    """The return of order `number`; dear orders come back, with some noise."""
    is_noise = number * 104729 % 100 < 15
    returned = (number * 7919 % 1009 > 500) != is_noise
    record_id = f"o-{number}"
    body = {"order_id": record_id, "decided_at": _time(number + LABEL_BEHIND), "returned": returned}
    return Sent(RETURNS, record_id.encode(), orjson.dumps(body))


def _time(number: int) -> str:
    return format_us(START_US + number * STEP_US)


class Writer:
    """A Kafka producer with endless patience."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._producer: AIOKafkaProducer | None = None

    async def write(self, records: Sequence[Sent]) -> None:
        """Returns once each is acknowledged; a record may be there twice then, as with any producer."""
        left = list(records)
        while left:
            try:
                producer = await self._started()
                futures = [await producer.send(r.topic, r.value, key=r.id) for r in left]
                async with asyncio.timeout(30):
                    results = await asyncio.gather(*futures, return_exceptions=True)
                left = [r for r, result in zip(left, results, strict=True) if isinstance(result, BaseException)]
            except (KafkaError, OSError, TimeoutError):
                pass
            if left:
                await self.close()
                await asyncio.sleep(0.2)

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._broker, acks="all", linger_ms=2, request_timeout_ms=5_000
            )
            try:
                async with asyncio.timeout(10):
                    await producer.start()
            except BaseException:
                await _given_up(producer)
                raise
            self._producer = producer
        return self._producer

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _given_up(producer)


async def _given_up(producer: AIOKafkaProducer) -> None:
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), 2)


class Load:
    """Producer and client of one system. `rate` is events and labels a second while it flows."""

    def __init__(self, system: Supervisor, seed: int, rate: float) -> None:
        self._system, self._rate = system, rate
        self._random = random.Random(seed)
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {system.token}"}, timeout=httpx2.Timeout(10, pool=30)
        )
        self._writer = Writer(system.broker)
        self._next = 0
        self._flowing, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
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
            content=DECLARATION,
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
        rate, self._rate = self._rate, 1_500.0
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
        return self._next >= FIRST_ORDERS

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
        """Chunk by chunk while it flows; the next one only goes out once all of this one is acknowledged."""
        loop = asyncio.get_running_loop()
        while True:
            await self._flowing.wait()
            self._idle.clear()
            started = loop.time()
            count = await self._send_chunk()
            self._idle.set()
            await asyncio.sleep(max(0.0, count / self._rate - (loop.time() - started)))

    async def _send_chunk(self) -> int:
        numbers = range(self._next, self._next + CHUNK)
        orders = [order(number) for number in numbers]
        returns = [order_return(n - LABEL_BEHIND) for n in numbers if n >= LABEL_BEHIND]
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
        return len(orders) + len(returns)

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
        record = order(self._next)
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
        end = format_us(START_US + (self._next + LABEL_BEHIND) * STEP_US + 20 * DAY_US + HOUR_US)
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
        event = orjson.loads(order(number).value) | {"ordered_at": _time(self._next), "order_id": f"asked-{number}"}
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
