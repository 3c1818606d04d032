"""A service's handlers on its real store, without a broker: what they derive, and at which wall time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from evenkeel.contracts.envelope import Event, parse_us
from evenkeel.contracts.payload import Caller, Payload
from evenkeel.libs.service import Context, Reply, Service
from evenkeel.libs.settings import Settings

C = TypeVar("C", bound=Context)
T = TypeVar("T")
CALLER: Final = Caller(name="dana", role="operator")
"""Who commands, in these tests."""
NOW_US: Final = parse_us("2026-06-01T00:00:00Z")
"""Wall time: thirteen years behind the events that these tests replay."""


class Handled(Generic[C]):
    """Each call is one transaction, as the runtime makes them; one that raises leaves nothing."""

    def __init__(self, service: Service[C], data_dir: Path) -> None:
        settings, own = Settings(data_dir=data_dir), service.settings()
        self.store = service.open_store(settings)
        self.store.open()
        self.ctx = service.context(settings, own)
        self.ctx.service, self.ctx.settings, self.ctx.own, self.ctx.now_us = service.name, settings, own, NOW_US
        self._events = 0

    def on(self, handler: Callable[[Event[Any], C], Iterable[Any]], payload: Payload, time: str) -> list[Any]:
        """What an event of this event time leads to."""
        self._events += 1
        event = Event[Any](payload, f"event-{self._events}", parse_us(time), "topic", 0, self._events, {})
        with self.store.begin() as tx:
            self.ctx.tx = tx
            return list(handler(event, self.ctx))

    def command(self, handler: Callable[[C], Reply[T]]) -> Reply[T]:
        with self.store.begin() as tx:
            self.ctx.tx = tx
            return handler(self.ctx)

    def ask(self, question: Callable[[C], T]) -> T:
        with self.store.begin() as tx:
            self.ctx.tx = tx
            return question(self.ctx)

    def close(self) -> None:
        self.store.close()
