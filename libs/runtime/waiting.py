"""Whether a service is ready, when it stops, and how it waits for infrastructure meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from evenkeel.libs.errors import Retry

T = TypeVar("T")
log = structlog.get_logger(__name__)

MOST_SECONDS: Final = 5.0
"""Longest wait between two tries."""


class Backoff:
    """How long to wait before the next try: twice as long each time, with jitter."""

    def __init__(self, first_seconds: float) -> None:
        self._next_seconds = first_seconds

    def seconds(self) -> float:
        wait_seconds = self._next_seconds * random.uniform(0.7, 1.3)
        self._next_seconds = min(self._next_seconds * 2, MOST_SECONDS)
        return wait_seconds


class StopSignal:
    """Whether the service is to stop. Belongs to the event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    async def within(self, seconds: float) -> bool:
        """Whether it comes in that time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        return self._event.is_set()


class Readiness:
    """Why a service is not ready, if it is not. Belongs to the event loop."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self.reason: str | None = "starting"
        self._troubles: dict[str, str] = {}
        """What is waited for now, by which part of the runtime waits: not ready until all of it is over."""

    def say(self, reason: str | None) -> None:
        """None: ready, as far as the caller knows."""
        if reason is None:
            reason = next(iter(self._troubles.values()), None)
        if reason != self.reason:
            self.reason = reason
            self._gauge.set(reason is None)
            (log.info if reason is None else log.warning)("ready" if reason is None else "not ready", reason=reason)

    def trouble(self, what: str, text: str) -> None:
        """A part of the runtime waits for something; it shows the next time that somebody else has nothing to say."""
        self._troubles[what] = text

    def over(self, what: str) -> None:
        self._troubles.pop(what, None)


class Persistence:
    """Infrastructure is waited for, for ever, with backoff and jitter, and the reason is there to be read. Belongs to the
    event loop."""

    def __init__(self, stop: StopSignal, readiness: Readiness, retries: Counter) -> None:
        self._stop, self._readiness, self._retries = stop, readiness, retries

    async def __call__(self, what: str, step: Callable[[], Awaitable[T]]) -> T:
        """What the step gives in the end; when the service stops meanwhile, it is cancelled."""
        backoff = Backoff(0.1)
        while True:
            try:
                answer = await step()
                self._readiness.over(what)
                return answer
            except Retry as error:
                if self._stop.is_set:
                    raise asyncio.CancelledError from error
                self._retries.labels(what).inc()
                text = f"{what}: {error}"
                self._readiness.trouble(what, text)
                self._readiness.say(text)
                await self._stop.within(backoff.seconds())
