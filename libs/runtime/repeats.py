"""Step 4 of the consume loop: what was applied before, or comes from a store that has nothing more to say, is skipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from evenkeel.contracts.envelope import Origin
from evenkeel.libs.store.protocol import MarkKey

_SEALED: Final = b"\0sealed"
"""The shard of the mark by which a sealed source is remembered."""


class Repeats:
    """The marks of (producer store, shard, input partition), and the sealed sources. Belongs to the writer thread.

    What a batch finds goes into marks of its own first: they count from the commit on. A seal counts at once; after a
    transaction that failed, `load` forgets it, and it is read anew.
    """

    def __init__(self) -> None:
        self._marks: dict[MarkKey, int] = {}
        self._sealed: set[tuple[bytes, str, int]] = set()
        """(source, topic, partition): what is at its end there."""

    def load(self, marks: Mapping[MarkKey, int]) -> None:
        self._marks = dict(marks)
        self._sealed = {(source, topic, n) for source, shard, topic, n in marks if shard == _SEALED}

    def is_known(self, origin: Origin, topic: str, partition: int, found: dict[MarkKey, int]) -> bool:
        """Whether a record is to be skipped; if not, `found` has its mark from here on."""
        source, shard, sequence = origin
        if self._sealed and (source, topic, partition) in self._sealed:
            return True
        key = (source, shard, topic, partition)
        if sequence <= found.get(key, self._marks.get(key, 0)):
            return True
        found[key] = sequence
        return False

    def seal(self, sources: Iterable[str], topic: str, partition: int, found: dict[MarkKey, int]) -> None:
        """From here on these sources say nothing more on this partition."""
        for source in sources:
            self._sealed.add((source.encode(), topic, partition))
            found[source.encode(), _SEALED, topic, partition] = 1

    def committed(self, found: Mapping[MarkKey, int]) -> None:
        self._marks |= found
