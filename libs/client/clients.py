"""The two clients: the same methods, one that waits and one that is awaited."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

import httpx2

from evenkeel.libs.client.exchange import Call, Outcome, Send, Step, Wait, exchange
from evenkeel.libs.client.local import addresses_of, token_given, token_of
from evenkeel.libs.settings import DEFAULT_PORTS

if TYPE_CHECKING:
    from evenkeel.libs.client.calls.feature import Feature
    from evenkeel.libs.client.calls.governance import Governance
    from evenkeel.libs.client.calls.ingest import Ingest
    from evenkeel.libs.client.calls.monitor import Monitor
    from evenkeel.libs.client.calls.operations import Operations
    from evenkeel.libs.client.calls.registry import Registry
    from evenkeel.libs.client.calls.serving import Serving
    from evenkeel.libs.client.calls.trainer import Trainer

A = TypeVar("A")
DEFAULT_URLS: Final[Mapping[str, str]] = {name: f"http://127.0.0.1:{port}" for name, port in DEFAULT_PORTS.items()}


class _Client:
    """What both are made with, and the methods of each service, which are imported when they are first asked for.

    `urls`: service → its address; one that is left out is looked for on this machine, at its default port.
    `token`: without it, the environment's `EVENKEEL_TOKEN`. `timeout_seconds`: for connecting, and for each silence of a
    service. `attempts`: how often a call is sent at most; only what may be repeated without harm is sent again.
    `transport`: one of httpx2, such as to an application in this process.
    """

    _connections: ClassVar[Any]

    def __init__(
        self,
        urls: Mapping[str, str] | None = None,
        *,
        token: str | None = None,
        timeout_seconds: float = 30.0,
        attempts: int = 3,
        transport: Any = None,
    ) -> None:
        unknown = sorted((urls or {}).keys() - DEFAULT_URLS.keys())
        if unknown:
            raise ValueError(f"urls names {', '.join(unknown)}: the services are {', '.join(DEFAULT_URLS)}")
        if attempts < 1:
            raise ValueError(f"attempts is {attempts}: a call is sent at least once")
        self.urls: Mapping[str, str] = {**DEFAULT_URLS, **(urls or {})}
        token = token or token_given()
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = self._connections(headers=headers, timeout=timeout_seconds, transport=transport)
        self._attempts = attempts

    @classmethod
    def of_folder(cls, data_dir: Path | str | None = None, **options: Any) -> Self:
        """A client of the system that `evenkeel up` runs on this data folder (the environment's `EVENKEEL_DATA_DIR`, or
        `.evenkeel`), with its addresses and token. `options` are those of the class. Raises ServiceError without a token."""
        folder = Path(data_dir or os.environ.get("EVENKEEL_DATA_DIR") or ".evenkeel")
        token = options.pop("token", None) or token_of(folder)
        return cls({**addresses_of(folder), **(options.pop("urls", None) or {})}, token=token, **options)

    def service(self, name: str) -> Operations[Self]:
        """What every service answers, of the one with this name."""
        found: Operations[Self] = getattr(self, name)
        return found

    @cached_property
    def ingest(self) -> Ingest[Self]:
        from evenkeel.libs.client.calls.ingest import Ingest

        return Ingest(self)

    @cached_property
    def feature(self) -> Feature[Self]:
        from evenkeel.libs.client.calls.feature import Feature

        return Feature(self)

    @cached_property
    def trainer(self) -> Trainer[Self]:
        from evenkeel.libs.client.calls.trainer import Trainer

        return Trainer(self)

    @cached_property
    def registry(self) -> Registry[Self]:
        from evenkeel.libs.client.calls.registry import Registry

        return Registry(self)

    @cached_property
    def serving(self) -> Serving[Self]:
        from evenkeel.libs.client.calls.serving import Serving

        return Serving(self)

    @cached_property
    def monitor(self) -> Monitor[Self]:
        from evenkeel.libs.client.calls.monitor import Monitor

        return Monitor(self)

    @cached_property
    def governance(self) -> Governance[Self]:
        from evenkeel.libs.client.calls.governance import Governance

        return Governance(self)

    def _request(self, send: Send) -> Any:
        """The request to be sent."""
        url = self.urls[send.service].rstrip("/") + send.target
        query = dict(send.query)
        return self._http.build_request(send.method, url, params=query, content=send.content, headers=send.headers)


class Client(_Client):
    """Calls the services and waits for their answers. Close it, or use it in a `with`. Threads may share it."""

    _connections = httpx2.Client

    def call(self, call: Call[A]) -> A:
        """Make a call; raises ServiceError."""
        steps = exchange(call, self._attempts)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                answer: A = done.value
                return answer
            outcome = self._take(step)

    def _take(self, step: Step) -> Outcome:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        try:
            response: httpx2.Response = self._http.send(self._request(step))
        except httpx2.HTTPError as error:
            return error
        return response

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Client):
    """Calls the services; every method is awaited. Close it, or use it in an `async with`. Tasks may share it."""

    _connections = httpx2.AsyncClient

    async def call(self, call: Call[A]) -> A:
        """Make a call; raises ServiceError."""
        steps = exchange(call, self._attempts)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                answer: A = done.value
                return answer
            outcome = await self._take(step)

    async def _take(self, step: Step) -> Outcome:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        try:
            response: httpx2.Response = await self._http.send(self._request(step))
        except httpx2.HTTPError as error:
            return error
        return response

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
