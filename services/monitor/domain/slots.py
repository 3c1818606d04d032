"""What is kept of one slot of event time: the joined rows and the counts of its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.sketches.profile import Binning

FOLD_ROWS: Final = 8_192
"""Vectors of the open slot are counted into bins when there are this many, so that memory stays bounded."""


class Part(msgspec.Struct, array_like=True):
    """What one release added to the open slot. `rows`: float32[vectors, k] of the vectors counted against `epoch`."""

    epoch: int
    cause: str
    predictions: int
    vectors: int
    columns: int
    rows: bytes
    label: bytes
    score: bytes
    decision: bytes
    epochs: bytes

    @property
    def empty(self) -> bool:
        return not (self.predictions or self.vectors or self.label)


class ClosedSlot(msgspec.Struct, array_like=True):
    """A slot that is over, as it is stored."""

    start_us: int
    predictions: int
    vectors: int
    label: bytes
    score: bytes
    decision: bytes
    epochs: bytes
    counts_epoch: int
    counts_shape: tuple[int, int]
    counts: bytes


encode_part = msgspec.msgpack.Encoder().encode
decode_part = msgspec.msgpack.Decoder(Part).decode
encode_slot = msgspec.msgpack.Encoder().encode
decode_slot = msgspec.msgpack.Decoder(ClosedSlot).decode


@dataclass(frozen=True, eq=False)
class Rows:
    """n joined rows in release order: float64[n] label, score and decision (0, 1; -1 for none), int64[n] epoch."""

    label: NDArray[np.float64]
    score: NDArray[np.float64]
    decision: NDArray[np.float64]
    epoch: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def of_epoch(self, epoch: int) -> Rows:
        chosen = self.epoch == epoch
        if chosen.all():
            return self
        return Rows(self.label[chosen], self.score[chosen], self.decision[chosen], self.epoch[chosen])


def concatenate(parts: Sequence[Rows]) -> Rows:
    """All rows, in order."""
    empty = np.empty(0)
    return Rows(
        np.concatenate([empty, *(part.label for part in parts)]),
        np.concatenate([empty, *(part.score for part in parts)]),
        np.concatenate([empty, *(part.decision for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.epoch for part in parts)]),
    )


@dataclass(frozen=True, eq=False)
class Slot:
    """A slot that is over. `counts`: int64[k, width] against the profile of `counts_epoch`; None without a profile."""

    start_us: int
    predictions: int
    vectors: int
    rows: Rows
    counts_epoch: int
    counts: NDArray[np.int64] | None

    def stored(self) -> ClosedSlot:
        counts = np.empty((0, 0), np.int64) if self.counts is None else self.counts
        return ClosedSlot(
            self.start_us,
            self.predictions,
            self.vectors,
            self.rows.label.tobytes(),
            self.rows.score.tobytes(),
            self.rows.decision.tobytes(),
            self.rows.epoch.tobytes(),
            self.counts_epoch,
            (counts.shape[0], counts.shape[1]),
            counts.tobytes(),
        )


def restored(slot: ClosedSlot) -> Slot:
    counts = np.frombuffer(slot.counts, np.int64).reshape(slot.counts_shape)
    return Slot(
        slot.start_us,
        slot.predictions,
        slot.vectors,
        Rows(
            np.frombuffer(slot.label, np.float64),
            np.frombuffer(slot.score, np.float64),
            np.frombuffer(slot.decision, np.float64),
            np.frombuffer(slot.epochs, np.int64),
        ),
        slot.counts_epoch,
        counts if counts.size else None,
    )


@dataclass
class OpenSlot:
    """The slot that time is in. It grows by release; `take_part` gives what the last one added."""

    start_us: int
    epoch: int = 0
    cause: str = ""
    predictions: int = 0
    vectors: int = 0
    label: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    decision: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    _fresh: list[Sequence[float | None]] = field(default_factory=list)
    _rows: list[NDArray[np.float32]] = field(default_factory=list)
    _counts: NDArray[np.int64] | None = None
    _taken: tuple[int, int, int] = (0, 0, 0)

    def count_against(self, epoch: int) -> None:
        """From here on vectors are compared with this epoch's profile: those before start no comparison."""
        self.epoch = epoch
        self._fresh, self._rows, self._counts = [], [], None

    def add_vector(self, values: Sequence[float | None]) -> None:
        self._fresh.append(values)

    def add_joined(self, label: float, score: float, decision: int, epoch: int) -> None:
        self.label.append(label)
        self.score.append(score)
        self.decision.append(decision)
        self.epochs.append(epoch)

    def take_part(self, binning: Binning | None) -> Part:
        """What was added since the last call."""
        joined, predictions, vectors = self._taken
        rows = self._settle(binning)
        part = Part(
            self.epoch,
            self.cause,
            self.predictions - predictions,
            self.vectors - vectors,
            0 if rows is None else rows.shape[1],
            b"" if rows is None else rows.tobytes(),
            np.array(self.label[joined:], np.float64).tobytes(),
            np.array(self.score[joined:], np.float64).tobytes(),
            np.array(self.decision[joined:], np.float64).tobytes(),
            np.array(self.epochs[joined:], np.int64).tobytes(),
        )
        self._taken = len(self.label), self.predictions, self.vectors
        return part

    def _settle(self, binning: Binning | None) -> NDArray[np.float32] | None:
        if not self._fresh:
            return None
        rows = np.array(self._fresh, dtype=np.float32)
        self._fresh = []
        self._keep(rows, binning)
        return rows

    def _keep(self, rows: NDArray[np.float32], binning: Binning | None) -> None:
        self._rows.append(rows)
        if binning is not None and sum(map(len, self._rows)) >= FOLD_ROWS:
            self._count(binning)

    def _count(self, binning: Binning) -> None:
        if self._rows:
            counts = binning.count(np.concatenate(self._rows))
            self._counts = counts if self._counts is None else self._counts + counts
            self._rows = []

    def replay(self, part: Part, binning: Binning | None) -> None:
        """Apply a stored part."""
        self.cause = part.cause or self.cause
        self.predictions += part.predictions
        self.vectors += part.vectors
        self.label += np.frombuffer(part.label, np.float64).tolist()
        self.score += np.frombuffer(part.score, np.float64).tolist()
        self.decision += np.frombuffer(part.decision, np.float64).tolist()
        self.epochs += np.frombuffer(part.epochs, np.int64).tolist()
        if part.columns and part.epoch == self.epoch:
            self._keep(np.frombuffer(part.rows, np.float32).reshape(-1, part.columns), binning)
        self._taken = len(self.label), self.predictions, self.vectors

    def close(self, binning: Binning | None) -> Slot:
        self._settle(binning)
        if binning is not None:
            self._count(binning)
        rows = Rows(
            np.array(self.label, np.float64),
            np.array(self.score, np.float64),
            np.array(self.decision, np.float64),
            np.array(self.epochs, np.int64),
        )
        return Slot(self.start_us, self.predictions, self.vectors, rows, self.epoch, self._counts)
