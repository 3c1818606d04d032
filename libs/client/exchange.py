"""How one call goes, without the I/O: what to send, when to send it again, and what came of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from evenkeel.contracts.http.messages import Problem, ProtocolError
from evenkeel.contracts.http.route import JSON, Route
from evenkeel.libs.client.errors import CallRefused, NoAnswer, ServiceError

A = TypeVar("A")
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0
_SHOWN_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One call of a route, ready to be sent, and how its answer is read."""

    service: str
    route: Route[Any]
    read: Callable[[bytes], A]
    path: Mapping[str, str | int] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The path with its variables filled in."""
        parts = self.route.path.split("/")
        return "/".join(_segment(self.path[part[1:-1]]) if part.startswith("{") else part for part in parts)


def _segment(value: str | int) -> str:
    """One part of a path, whatever it holds; `.` and `..` would be walked along.

    >>> _segment("a/b c"), _segment("."), _segment(".."), _segment("v1.2")
    ('a%2Fb%20c', '%2E', '%2E%2E', 'v1.2')
    """
    text = quote(str(value), safe="")
    return text.replace(".", "%2E") if text in (".", "..") else text


class Send(NamedTuple):
    """A request to be sent to the service."""

    service: str
    method: str
    target: str
    query: Mapping[str, Any]
    content: bytes | None
    headers: Mapping[str, str]


class Wait(NamedTuple):
    """A pause before the next step."""

    seconds: float


Step = Send | Wait
Outcome = httpx2.Response | httpx2.HTTPError | None
"""What came of a step: a response, what prevented one, or nothing of a pause."""


def exchange(call: Call[A], attempts: int) -> Generator[Step, Outcome, A]:
    """Yields steps and takes their outcomes; returns the answer, or raises ServiceError.

    A call is sent again, `attempts` times in all, if nobody was reached; and if its second time changes nothing more, also
    if no answer came or the service says that it cannot now.
    """
    request = Send(call.service, call.route.method, call.target, call.query, call.content, call.headers)
    for number in range(1, attempts + 1):
        outcome = yield request
        assert outcome is not None
        if isinstance(outcome, httpx2.Response) and _is_answer(call.route, outcome.status_code):
            return _read(call, outcome)
        error, may_repeat, pause_seconds = _failed(call, outcome, number)
        if number == attempts or not may_repeat:
            raise error
        yield Wait(pause_seconds)
    raise ValueError("attempts must be at least 1")


def _is_answer(route: Route[Any], status: int) -> bool:
    """Also another status whose answer has the same form, as a service that is not ready."""
    return status == route.status or route.answers.get(status) is route.answer


def _read(call: Call[A], response: httpx2.Response) -> A:
    try:
        return call.read(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        raise NoAnswer(
            f"{call.service} answered {call.route.method} {call.target} in a form that this release does not read: "
            f"{where}: {first['msg']}; use a client of the service's release"
        ) from error


def _failed(
    call: Call[Any], outcome: httpx2.Response | httpx2.HTTPError, number: int
) -> tuple[ServiceError, bool, float]:
    """The error, whether the call may be sent again, and after how many seconds."""
    pause_seconds = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
    if isinstance(outcome, httpx2.Response):
        told = outcome.headers.get("retry-after", "")
        if told.isdigit():
            pause_seconds = min(LONGEST_PAUSE_SECONDS, float(told))
        is_away = outcome.status_code == 503
        return CallRefused(_problem(call.route, outcome)), is_away and call.route.may_be_repeated, pause_seconds
    kind, url = type(outcome).__name__, outcome.request.url
    if isinstance(outcome, httpx2.ConnectError | httpx2.ConnectTimeout):
        where = f"{url.scheme}://{url.netloc.decode()}"
        error = NoAnswer(f"{call.service} was not reached at {where} ({kind}): is it running?")
        return error, True, pause_seconds
    message = f"{call.service} gave no answer to {call.route.method} {call.target} ({kind})"
    return NoAnswer(message), call.route.may_be_repeated, pause_seconds


def _problem(route: Route[Any], response: httpx2.Response) -> Problem:
    """The problem document of a refusal, whatever form it has."""
    status = response.status_code
    model = route.answers.get(status, route.refusal)
    try:
        found = (model if issubclass(model, Problem | ProtocolError) else Problem).model_validate_json(response.content)
    except ValidationError:
        text = response.text.strip()[:_SHOWN_CHARACTERS] or f"HTTP status {status}"
        return Problem(title=f"HTTP status {status}", status=status, detail=text)
    if isinstance(found, ProtocolError):
        return Problem(title=f"HTTP status {status}", status=status, detail=found.error)
    assert isinstance(found, Problem)
    return found


def call_of(
    service: str,
    route: Route[A],
    *,
    query: BaseModel | None = None,
    body: BaseModel | None = None,
    **path: str | int,
) -> Call[A]:
    """A call whose answer is read as its route says."""
    return Call(
        service,
        route,
        reader(route.answer),
        path,
        {} if query is None else query.model_dump(mode="json", exclude_defaults=True),
        None if body is None else body.model_dump_json(exclude_unset=True).encode(),
        {} if body is None else {"content-type": JSON},
    )


def reader(answer: type[A]) -> Callable[[bytes], A]:
    """How the bytes of an answer become the answer."""
    if issubclass(answer, BaseModel):
        return answer.model_validate_json
    return lambda content: answer(content.decode())  # type: ignore[call-arg]


def json_bytes(value: Any) -> bytes:
    """A body as JSON; raises ValueError for what JSON cannot hold."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
