"""One batch on its way to being committed, and what was learnt about it in the tries so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from evenkeel.contracts.envelope import Record
from evenkeel.libs.bus.protocol import TopicPartition
from evenkeel.libs.runtime.held import Where

TRIES: Final = 3
"""A handler that fails as often on one event fails on it for good."""


class HandlerFailed(Exception):
    """A handler raised on one event, which is named. Only while a batch runs event by event."""

    def __init__(self, event_id: str, where: Where, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.event_id, self.where = event_id, where


class Attempt:
    """Belongs to the event loop, which changes it between tries; the writer thread reads it during one."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.isolate = False
        """Event by event, to find the one that the trouble is about."""
        self.poison: dict[Where, str] = {}
        """Records that their handler cannot take, with what it said."""
        self._fact_ends: Mapping[TopicPartition, int] | None = None
        self._failures = 0

    @property
    def has_facts(self) -> bool:
        """Whether the control topics were read to their end for this batch."""
        return self._fact_ends is not None

    def with_facts(self, records: Sequence[Record], ends: Mapping[TopicPartition, int]) -> None:
        """Go on with these, among which is all that the control topics held up to `ends`."""
        self.records, self._fact_ends = records, ends

    def knows_facts_of(self, where: Where) -> bool:
        """Whether every fact that the record at this place may name has been read. One that is still missing never comes."""
        if self._fact_ends is None:
            return False
        topic, partition, offset = where
        return offset < self._fact_ends.get((topic, partition), offset + 1)

    def failed_at(self, error: HandlerFailed) -> int:
        """How often the handler has failed on this event; the last time it is poisoned."""
        self._failures += 1
        failures = self._failures
        if failures >= TRIES:
            self.poison[error.where] = str(error)
            self._failures = 0
        return failures

    def failed(self) -> bool:
        """After a fault that is about no event that we know: whether another try is worth it."""
        if self.isolate:
            self._failures += 1
        self.isolate = True
        return self._failures < TRIES
