"""The ids seen on one stream: within the horizon, the same id is the same record again, or a conflict.

Held as 64-bit digests of id and content; stored as one blob per batch, so that a million ids are a few hundred rows.
Two different ids of a million agree in 64 bits with a probability of 3 in 100 million.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple


class IdBatch(NamedTuple):
    """The ids of one batch as they are stored."""

    number: int
    newest_us: int
    blob: bytes
    """Little-endian: the ids' digests, then the contents' digests, 8 bytes each."""


class SeenIds:
    """Not thread-safe. `add` what a transaction accepted, then `take_batch` to store it."""

    def __init__(self, batches: Iterable[IdBatch] = ()) -> None:
        self._contents: dict[int, int] = {}
        self._batches: deque[tuple[int, int, tuple[int, ...]]] = deque()
        self._new: list[int] = []
        self._newest_us: int | None = None
        for batch in batches:
            values = struct.unpack(f"<{len(batch.blob) // 8}Q", batch.blob)
            ids = values[: len(values) // 2]
            self._contents.update(zip(ids, values[len(ids) :], strict=True))
            self._batches.append((batch.number, batch.newest_us, ids))

    def __len__(self) -> int:
        return len(self._contents)

    def look(self, id_digest: int, content_digest: int) -> Literal["new", "duplicate", "id_conflict"]:
        found = self._contents.get(id_digest)
        if found is None:
            return "new"
        return "duplicate" if found == content_digest else "id_conflict"

    def add(self, id_digest: int, content_digest: int, time_us: int) -> None:
        self._contents[id_digest] = content_digest
        self._new.append(id_digest)
        if self._newest_us is None or time_us > self._newest_us:
            self._newest_us = time_us

    def take_batch(self) -> IdBatch | None:
        """What was added since the last call."""
        if self._newest_us is None:
            return None
        ids, newest_us = tuple(self._new), self._newest_us
        number = self._batches[-1][0] + 1 if self._batches else 1
        self._batches.append((number, newest_us, ids))
        self._new, self._newest_us = [], None
        values = (*ids, *(self._contents[found] for found in ids))
        return IdBatch(number, newest_us, struct.pack(f"<{len(values)}Q", *values))

    def prune(self, oldest_us: int | None, max_ids: int) -> int | None:
        """Forget batches that are older than `oldest_us` or too many; the number up to which all are gone, if any went.

        The last batch stays, so that numbers go on.
        """
        last: int | None = None
        while len(self._batches) > 1:
            number, newest_us, ids = self._batches[0]
            if len(self._contents) <= max_ids and (oldest_us is None or newest_us >= oldest_us):
                break
            for found in ids:
                del self._contents[found]
            self._batches.popleft()
            last = number
        return last
