"""Questions to the store, asked on the event loop and answered in threads of their own, each on a snapshot.

What waits when a thread is free is answered together, on one snapshot taken then: a short question costs less than a
thread's turn, and threads that take turns at the interpreter all the time slow each other down.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, TypeVar

from evenkeel.libs.errors import Refused, Retry

T = TypeVar("T")
Question = Callable[[Any], Any]
Answer = tuple[Any, Exception | None]

READERS: Final = 2
"""Threads: one, and another while that one is at a long question."""
TOGETHER: Final = 32
"""Most questions that share a snapshot."""
SHARE_SECONDS: Final = 0.005
"""A question that takes longer is a long one: those behind it are answered by another thread, or have a turn of their own."""


class Readers:
    """Belongs to its runtime's event loop."""

    def __init__(self, reading: Callable[[], AbstractContextManager[Any]]) -> None:
        """`reading` opens a snapshot of the store."""
        self._reading = reading
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._waiting: deque[tuple[Question, asyncio.Future[Any]]] = deque()
        self._at_work: set[asyncio.Future[list[Answer]]] = set()
        self._long: set[asyncio.Future[list[Answer]]] = set()
        self._is_closed = False

    async def ask(self, question: Callable[[Any], T]) -> T:
        """What `question` makes of the engine's handle on a snapshot; raises what it raises, and Retry or Stop if the
        store cannot be read."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._go_on()
        return await future

    def close(self) -> None:
        """What is being answered still is; whoever waits, now or later, gets Retry."""
        self._is_closed = True
        self._threads.shutdown(wait=False)
        self._go_on()

    def _go_on(self) -> None:
        while self._is_closed and self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(Retry("the service stops"))
        while self._waiting and self._at_work == self._long and len(self._at_work) < READERS:
            group = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            questions = [question for question, _ in group]
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._threads, self._answer, questions)
            self._at_work.add(work)
            work.add_done_callback(partial(self._deliver, group))
            loop.call_later(SHARE_SECONDS, self._look_at, work)

    def _look_at(self, work: asyncio.Future[list[Answer]]) -> None:
        if work in self._at_work:
            self._long.add(work)
            self._go_on()

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        """In a reader's thread: the answers to the first of them, one at least."""
        answers: list[Answer] = []
        began = time.monotonic()
        try:
            with self._reading() as snapshot:
                for question in questions:
                    try:
                        answers.append((question(snapshot), None))
                    except Refused as error:
                        answers.append((None, error))
                    if time.monotonic() - began > SHARE_SECONDS:
                        break
        except Exception as error:  # noqa: BLE001 - whoever asked what failed gets it; the others are asked anew
            answers.append((None, error))
        return answers

    def _deliver(
        self, group: Sequence[tuple[Question, asyncio.Future[Any]]], work: asyncio.Future[list[Answer]]
    ) -> None:
        self._at_work.discard(work)
        self._long.discard(work)
        answers = work.result()[: len(group)]
        for (_, future), (answer, error) in zip(group, answers, strict=False):
            if future.done():  # nobody waits any more
                continue
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)
        self._waiting.extendleft(reversed(group[len(answers) :]))
        self._go_on()
