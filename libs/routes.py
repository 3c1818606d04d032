"""What a service answers: rows of `contracts/http`, each with the function that answers it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from evenkeel.contracts.http.route import Route

A = TypeVar("A")


class Other(NamedTuple):
    """An answer with another status than the row's, one of its `answers`."""

    status: int
    body: BaseModel


class Written(NamedTuple):
    """An answer that is bytes already."""

    content: bytes
    media_type: str


Answering = Callable[..., Coroutine[Any, Any, A | Other | Written]]
"""Takes the variables of the path by their names, `query` and `body` as the row's models, and `caller`, as far as it needs
them; raises Refused."""


class Routes:
    """The rows that are answered, in the order in which paths are tried."""

    def __init__(self) -> None:
        self.functions: dict[Route[Any], Callable[..., Coroutine[Any, Any, Any]]] = {}

    def answer(self, route: Route[A]) -> Callable[[Answering[A]], Answering[A]]:
        """`@routes.answer(ROW)`: the function below answers this row."""

        def add(function: Answering[A]) -> Answering[A]:
            if route in self.functions:
                raise ValueError(f"{route.method} {route.path} is answered twice")
            self.functions[route] = function
            return function

        return add
