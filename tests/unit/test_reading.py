"""Questions to the store: who waits shares a snapshot, and nobody is kept, failed or forgotten because of another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from evenkeel.libs.errors import Refused, Retry
from evenkeel.libs.runtime.reading import READERS, Readers

pytestmark = pytest.mark.anyio

SECONDS = 10.0


class Store:
    """Opens numbered snapshots, none while it is away."""

    def __init__(self) -> None:
        self.snapshots = 0
        self.is_away = False

    @contextmanager
    def reading(self) -> Iterator[int]:
        self.snapshots += 1
        if self.is_away:
            raise Retry("away")
        yield self.snapshots


class Long:
    """A question that is not answered before somebody says so."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, snapshot: int) -> int:
        self.begun.set()
        assert self.may_end.wait(SECONDS)
        return snapshot

    async def begins(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, SECONDS)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def readers(store: Store) -> AsyncIterator[Readers]:
    readers = Readers(store.reading)
    yield readers
    readers.close()


def snapshot(number: int) -> int:
    return number


async def test_what_waits_together_shares_a_snapshot_taken_after_it_was_asked(readers: Readers) -> None:
    first = asyncio.ensure_future(readers.ask(snapshot))
    others = [asyncio.ensure_future(readers.ask(snapshot)) for _ in range(5)]
    assert await asyncio.gather(first, *others) == [1, 2, 2, 2, 2, 2]
    assert await readers.ask(snapshot) == 3


async def test_a_refusal_is_for_whoever_asked(readers: Readers) -> None:
    def refuse(number: int) -> int:
        raise Refused(404, "Unknown", "There is no such thing.", fix="Ask for another.")

    asked = [asyncio.ensure_future(readers.ask(question)) for question in (snapshot, snapshot, refuse, snapshot)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [1, 2, 2]
    assert isinstance(answers[2], Refused)


async def test_what_fails_otherwise_fails_alone_and_the_others_are_asked_anew(readers: Readers) -> None:
    def fail(number: int) -> int:
        raise ZeroDivisionError(number)

    asked = [asyncio.ensure_future(readers.ask(question)) for question in (snapshot, snapshot, fail, snapshot)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [1, 2, 3]
    assert isinstance(answers[2], ZeroDivisionError)


async def test_while_the_store_is_away_each_is_told_and_later_ones_are_answered(readers: Readers, store: Store) -> None:
    store.is_away = True
    asked = [asyncio.ensure_future(readers.ask(snapshot)) for _ in range(4)]
    assert {type(answer) for answer in await asyncio.gather(*asked, return_exceptions=True)} == {Retry}
    store.is_away = False
    assert await readers.ask(snapshot) == store.snapshots


async def test_a_long_question_keeps_nobody(readers: Readers) -> None:
    long = Long()
    waiting = asyncio.ensure_future(readers.ask(long))
    await long.begins()
    for _ in range(3):
        assert await asyncio.wait_for(readers.ask(snapshot), SECONDS) > 1
    long.may_end.set()
    assert await waiting == 1


async def test_behind_a_long_question_the_rest_has_a_turn_of_its_own(readers: Readers) -> None:
    long = Long()
    first = asyncio.ensure_future(readers.ask(snapshot))
    together = [asyncio.ensure_future(readers.ask(question)) for question in (snapshot, long, snapshot)]
    await long.begins()
    alone = await asyncio.wait_for(readers.ask(snapshot), SECONDS)
    long.may_end.set()
    assert await first == 1
    assert await asyncio.gather(*together) == [2, 2, alone + 1]


async def test_when_all_threads_are_at_long_questions_others_wait_for_one(readers: Readers) -> None:
    long = [Long() for _ in range(READERS)]
    waiting = []
    for one in long:
        waiting.append(asyncio.ensure_future(readers.ask(one)))
        await one.begins()
    last = asyncio.ensure_future(readers.ask(snapshot))
    long[0].may_end.set()
    assert await asyncio.wait_for(last, SECONDS) == READERS + 1
    long[1].may_end.set()
    assert sorted(await asyncio.gather(*waiting)) == [1, 2]


async def test_whoever_gives_up_takes_no_answer_from_the_others(readers: Readers) -> None:
    long = Long()
    waiting = asyncio.ensure_future(readers.ask(long))
    await long.begins()
    waiting.cancel()
    long.may_end.set()
    assert await readers.ask(snapshot) > 1
    assert waiting.cancelled()


async def test_at_the_end_whoever_still_waits_is_told(readers: Readers) -> None:
    first, long = asyncio.ensure_future(readers.ask(snapshot)), Long()
    together = [asyncio.ensure_future(readers.ask(question)) for question in (long, snapshot)]
    await long.begins()
    readers.close()
    left = asyncio.ensure_future(readers.ask(snapshot))
    with pytest.raises(Retry, match="stops"):
        await left
    long.may_end.set()
    assert await first == 1
    answered, last = await asyncio.gather(*together, return_exceptions=True)
    assert answered == 2, "what is being answered still is"
    assert last == 2 or isinstance(last, Retry)
