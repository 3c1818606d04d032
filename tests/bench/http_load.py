"""A load generator for HTTP/1.1: closed loop, keep-alive connections, one fixed request each, the same for every server."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import orjson

from evenkeel.libs.process.ports import LOOPBACK

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE).search
_END: Final = b"\r\n\r\n"
ANSWER_SECONDS: Final = 20.0


@dataclass
class Load:
    """What came of it. Times are seconds; `failed` counts answers that were not 2xx, and broken connections."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    first_failure: str = ""

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")

    def fail(self, answer: str) -> None:
        self.failed += 1
        self.first_failure = self.first_failure or answer[:300]


def request(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """The bytes of a request. Hosts are `localhost`, which some servers insist on."""
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()] + [f"content-length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes], load: Load, until: float) -> None:
        self._requests, self._load, self._until = requests, load, until
        self._next = 0
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        if self._sent_at >= self._until or self._next >= len(self._requests) > 1:
            self._transport.close()
            return
        self._transport.write(self._requests[self._next if len(self._requests) > 1 else 0])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        end = data.find(_END)
        length = _LENGTH(data, 0, end + 2) if end >= 0 else None
        if length is None or len(data) < end + 4 + int(length[1]):
            self._buffer = data
            return
        self._buffer = b""
        self._load.latencies.append(time.perf_counter() - self._sent_at)
        if data[9:10] != b"2":
            self._load.fail(data.decode(errors="replace"))
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None or (self._sent_at < self._until and self._next < len(self._requests)):
            self._load.fail(f"the connection was lost: {error}")
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, requests: Sequence[bytes], seconds: float, connections: int) -> Load:
    """Send one request again and again, or several one after the other on each connection, each sent once."""
    found = Load()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda number=number: _Connection(  # type: ignore[misc]
                requests if len(requests) == 1 else requests[number::connections], found, started + seconds
            ),
            LOOPBACK,
            port,
        )
        for number in range(connections)
    ]
    try:
        await asyncio.wait_for(asyncio.gather(*(protocol.done for _, protocol in made)), seconds + ANSWER_SECONDS)
    except TimeoutError:
        found.fail(f"no answer for {ANSWER_SECONDS:.0f} s")
    finally:
        for transport, _ in made:
            transport.abort()
    found.seconds = time.perf_counter() - started
    return found


async def call(port: int, sent: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body. Raises OSError, asyncio.IncompleteReadError."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(sent)
        head = await reader.readuntil(_END)
        length = _LENGTH(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        return int(head[9:12]), body
    finally:
        writer.close()


async def first_answer(port: int, sent: bytes, within_seconds: float) -> float | None:
    """Seconds until the first 2xx; None if there is none within the time."""
    started = time.perf_counter()
    while time.perf_counter() < started + within_seconds:
        try:
            status, _ = await asyncio.wait_for(call(port, sent), within_seconds)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            status = 0
        if 200 <= status < 300:
            return time.perf_counter() - started
        await asyncio.sleep(0.01)
    return None


async def metrics(port: int) -> Mapping[str, float]:
    """The samples of one of our services' /metrics, by name and labels."""
    _, body = await call(port, request("GET", "/metrics"))
    lines = (line for line in body.decode().splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
