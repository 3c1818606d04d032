"""Joining predictions with labels by event id: whichever comes first waits for the other until the label horizon.

Both sides are held in memory and in a log: every change is one entry, and reading the entries in order gives both sides
again. A prediction and a label belong together if the label took its turn at most a horizon after the predicted event's
time, and the prediction at most a horizon after the label's; so when what is too old is forgotten changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec


class Open(NamedTuple):
    """A prediction without its label yet."""

    time_us: int
    score: float
    decision: int
    epoch: int


class Early(NamedTuple):
    """A label without its prediction yet, and when it came."""

    order_us: int
    value: float


class LogEntry(msgspec.Struct, array_like=True):
    """What one release changed. `until_us`: when nothing of it can matter any more."""

    until_us: int
    opened: dict[str, Open] = {}
    early: dict[str, Early] = {}
    closed: list[str] = []
    taken: list[str] = []

    @property
    def empty(self) -> bool:
        return not (self.opened or self.early or self.closed or self.taken)


encode_entry = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(LogEntry).decode


@dataclass
class Joins:
    """The two sides. `horizon_us` is the model's label horizon."""

    horizon_us: int
    open: dict[str, Open] = field(default_factory=dict)
    early: dict[str, Early] = field(default_factory=dict)
    until_us: int = 0
    _entry: LogEntry = field(default_factory=lambda: LogEntry(0))

    def predict(self, event_id: str, order_us: int, prediction: Open) -> float | None:
        """The label if it is there already. A second prediction for an event is ignored."""
        early = self.early.get(event_id)
        if early is not None and order_us <= early.order_us + self.horizon_us:
            del self.early[event_id]
            if self._entry.early.pop(event_id, None) is None:
                self._entry.taken.append(event_id)
            return early.value
        if event_id not in self.open:
            self.open[event_id] = self._entry.opened[event_id] = prediction
        return None

    def label(self, event_id: str, order_us: int, value: float) -> Open | None:
        """The prediction if it is there already. A second label for an event finds none and waits in vain."""
        prediction = self.open.get(event_id)
        if prediction is not None and order_us <= prediction.time_us + self.horizon_us:
            del self.open[event_id]
            if self._entry.opened.pop(event_id, None) is None:
                self._entry.closed.append(event_id)
            return prediction
        if event_id not in self.early:
            self.early[event_id] = self._entry.early[event_id] = Early(order_us, value)
        return None

    def forget(self, before_us: int) -> None:
        """Drop what no record from `before_us` on can be joined with."""
        oldest_us = before_us - self.horizon_us
        self.open = {key: one for key, one in self.open.items() if one.time_us >= oldest_us}
        self.early = {key: one for key, one in self.early.items() if one.order_us >= oldest_us}

    def take_entry(self, order_us: int) -> LogEntry:
        """The changes since the last call; they were made by records up to `order_us`."""
        entry, self._entry = self._entry, LogEntry(0)
        # Entries are dropped oldest first: one that closes a prediction outlives the one that opened it.
        self.until_us = entry.until_us = max(self.until_us, order_us + self.horizon_us)
        return entry

    def replay(self, entry: LogEntry) -> None:
        """Apply a stored entry."""
        self.open |= entry.opened
        self.early |= entry.early
        for event_id in entry.closed:
            self.open.pop(event_id, None)
        for event_id in entry.taken:
            self.early.pop(event_id, None)
        self.until_us = max(self.until_us, entry.until_us)
