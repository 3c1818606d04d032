"""Methods that are written once and serve both clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from evenkeel.libs.client.exchange import Call

P = ParamSpec("P")
A = TypeVar("A")
C_co = TypeVar("C_co", covariant=True)


class Waits(Protocol):
    """A client whose calls give their answers."""

    def call(self, call: Call[A]) -> A: ...


class Awaits(Protocol):
    """A client whose calls are awaited."""

    def call(self, call: Call[A]) -> Awaitable[A]: ...


class Group(Generic[C_co]):
    """The methods of one service, of a client that waits or that is awaited."""

    def __init__(self, client: C_co) -> None:
        self.client = client


class operation(Generic[P, A]):  # noqa: N801 - a decorator
    """Above a method that builds a call: calling the method makes the call."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[A]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, group: Group[Waits], owner: Any = None) -> Callable[P, A]: ...
    @overload
    def __get__(self, group: Group[Awaits], owner: Any = None) -> Callable[P, Awaitable[A]]: ...
    @overload
    def __get__(self, group: None, owner: Any = None) -> operation[P, A]: ...

    def __get__(self, group: Any, owner: Any = None) -> Any:
        if group is None:
            return self

        build = MethodType(self.build, group)

        @wraps(build)
        def made(*arguments: P.args, **named: P.kwargs) -> Any:
            return group.client.call(build(*arguments, **named))

        return made
