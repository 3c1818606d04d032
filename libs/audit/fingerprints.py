"""Which leaves may hold an event id: a sorted index of 8-byte fingerprints, in memory.

The log keeps the fingerprints of every segment beside it, in leaf order, so this index needs no pages of its own on
disk: a B-tree over random ids wrote 8 KiB per leaf (SQLite, 3 million ids), this writes 8 bytes. At start they are read
back and sorted once. A fingerprint only says "perhaps here": whoever asks reads the leaf and compares the id.

It costs 12 bytes of memory per id (36 MB for 3 million). Ids arrive in batches; each becomes a sorted run, and runs are
merged in the manner of a log-structured merge tree, so that there are at most about log2(ids / batch) of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Fingerprints: TypeAlias = npt.NDArray[np.uint64]
Leaves: TypeAlias = npt.NDArray[np.uint32]

FINGERPRINT_BYTES: Final = 8
NO_ID: Final = bytes(FINGERPRINT_BYTES)
MAX_LEAVES: Final = 2**32


class _Run(NamedTuple):
    fingerprints: Fingerprints
    leaves: Leaves


def fingerprint(event_id: bytes) -> bytes:
    """The first 8 bytes of the id's SHA-256: as evenly spread for counters and timed UUIDs as for random ones."""
    return sha256(event_id).digest()[:FINGERPRINT_BYTES]


class FingerprintIndex:
    """Fingerprint → leaf numbers. One thread adds; others may look up at any time."""

    def __init__(self) -> None:
        self._runs: tuple[_Run, ...] = ()

    @classmethod
    def load(cls, parts: Iterable[bytes]) -> FingerprintIndex:
        """The index of a whole log from the fingerprints of its segments, in order."""
        index = cls()
        index.add(b"".join(parts), 0)
        return index

    def __len__(self) -> int:
        return sum(len(run.leaves) for run in self._runs)

    def add(self, fingerprints: bytes, first_leaf: int) -> list[int]:
        """Add the leaves from `first_leaf` on, 8 bytes each, `NO_ID` for those without an id.

        Returns, sorted, those leaves whose fingerprint occurs earlier in the log or more than once among themselves.
        Raises OverflowError beyond 2**32 leaves.
        """
        values = np.frombuffer(fingerprints, dtype="<u8")
        if first_leaf + len(values) > MAX_LEAVES:
            raise OverflowError(f"the index holds at most {MAX_LEAVES} leaves: start a new log")
        order = np.argsort(values, kind="stable")
        ordered = values[order].astype(np.uint64, copy=False)
        skipped = int(np.searchsorted(ordered, np.uint64(0), side="right"))
        run = _Run(ordered[skipped:], (order[skipped:] + first_leaf).astype(np.uint32))
        if not len(run.leaves):
            return []
        repeated = np.zeros(len(run.leaves), dtype=np.bool_)
        equal = run.fingerprints[1:] == run.fingerprints[:-1]
        repeated[1:] |= equal
        repeated[:-1] |= equal
        for earlier in self._runs:
            places = np.searchsorted(earlier.fingerprints, run.fingerprints)
            np.minimum(places, len(earlier.fingerprints) - 1, out=places)
            repeated |= earlier.fingerprints[places] == run.fingerprints
        runs = [*self._runs, run]
        while len(runs) > 1 and len(runs[-2].leaves) <= 2 * len(runs[-1].leaves):
            runs[-2:] = [_merge(runs[-2], runs[-1])]
        self._runs = tuple(runs)
        return sorted(run.leaves[repeated].tolist())

    def find(self, fingerprint: bytes) -> list[int]:
        """The leaves with this fingerprint, in log order."""
        value = np.frombuffer(fingerprint, dtype="<u8")[0]
        return sorted(chain.from_iterable(_leaves(run, value) for run in self._runs))


def _leaves(run: _Run, value: np.uint64) -> list[int]:
    low, high = np.searchsorted(run.fingerprints, value, "left"), np.searchsorted(run.fingerprints, value, "right")
    leaves: list[int] = run.leaves[low:high].tolist()
    return leaves


def _merge(left: _Run, right: _Run) -> _Run:
    fingerprints = np.concatenate((left.fingerprints, right.fingerprints))
    order = np.argsort(fingerprints, kind="stable")
    return _Run(fingerprints[order], np.concatenate((left.leaves, right.leaves))[order])
