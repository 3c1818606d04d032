"""The offline verifier: reads the whole stored log once and believes none of it.

It needs the service's public key and, to notice a log rewritten by somebody who holds the private key, one checkpoint
that the auditor kept. Every leaf is hashed again, the tree is built again, and every root ever signed must come out at
its size; that makes all checkpoints consistent with each other without any proof. What the log keeps for speed (tiles,
fingerprints, marks of duplicates) is compared with what the leaves say. Memory does not grow with the log but for
12 bytes per event id.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

import sqlalchemy as sa

from evenkeel.libs.audit import merkle
from evenkeel.libs.audit.checkpoint import Checkpoint, CheckpointError, verify_checkpoint
from evenkeel.libs.audit.fingerprints import FingerprintIndex
from evenkeel.libs.audit.leaves import SegmentFacts, read_segment
from evenkeel.libs.audit.log import (
    Leaves,
    checkpoint_notes,
    duplicate_leaves,
    first_occurrences,
    head,
    segments,
    stored_tiles,
)
from evenkeel.libs.keys import VerificationKey

ProblemKind: TypeAlias = Literal[
    "trusted",  # the log contradicts the checkpoint that the auditor kept
    "anchor",  # the log contradicts a checkpoint that was anchored outside of it
    "checkpoint",  # a stored checkpoint is not signed by the key, or the log contradicts it
    "segment",  # a segment is missing, damaged, or its root does not follow from the leaves
    "leaf",  # a leaf is not the one that was hashed when it was appended
    "tile",  # a stored inner hash is wrong: proofs made from it would fail
    "record",  # a leaf is not a record
    "offset",  # offsets of a topic's partition are not contiguous
    "index",  # stored fingerprints or marks of duplicates differ from the event ids
]
MAX_PROBLEMS: Final = 100
_PAGE_SEGMENTS: Final = 8
_SEGMENTS_AHEAD: Final = 16
_PARALLEL_LEAVES: Final = 100_000

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (leaves verified, leaves in all)."""


@dataclass(frozen=True, slots=True)
class Problem:
    kind: ProblemKind
    leaf: int | None
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What the verifier found. `ok` means: nothing was altered, removed, reordered or left out, as far as signed."""

    size: int
    """Leaves verified."""
    root: bytes
    checkpoints: int
    """Stored checkpoints whose signature and root were right."""
    signed_size: int
    """Leaves under the newest of them; what lies beyond is consistent in itself but not vouched for yet."""
    last_checkpoint: bytes | None
    """The newest of them, to be kept as the next trusted one."""
    duplicates: int
    """Leaves whose event id occurs earlier in the log."""
    offsets: dict[tuple[str, int], tuple[int, int]]
    """Per topic and partition: the first logged offset and the one after the last."""
    problems: tuple[Problem, ...]
    """The first MAX_PROBLEMS of them."""
    problem_count: int

    @property
    def ok(self) -> bool:
        return not self.problem_count


def verify_log(
    url: str,
    key: VerificationKey,
    trusted: bytes | None = None,
    *,
    anchored: Iterable[bytes] = (),
    schema: str = "governance",
    progress: Progress | None = None,
) -> VerifyReport:
    """Verify the log in the database at `url` (SQLite file, opened read-only, or PostgreSQL with its `schema`).

    `trusted` is a checkpoint that the caller kept from an earlier run, `anchored` are those that governance itself keeps
    outside the database. A log that is written meanwhile is verified as
    it stood at the start. Raises FileNotFoundError if there is no such file; everything else wrong is in the report.
    """
    engine = _read_only_engine(url, schema)
    try:
        with engine.connect() as connection, connection.begin():
            return _Verification(connection, key, trusted, anchored, progress).run()
    finally:
        engine.dispose()


def read_trusted(path: Path) -> bytes | None:
    """The checkpoint kept in a file, None if there is none yet."""
    return path.read_bytes() if path.exists() else None


def write_trusted(path: Path, note: bytes) -> None:
    """Keep a checkpoint in a file, in place of an earlier one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as file:
        file.write(note)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@dataclass(frozen=True, slots=True)
class _Segment:
    first: int
    count: int
    root: bytes
    fingerprints: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class _Promise:
    """A root that must come out at a size."""

    kind: Literal["trusted", "anchor", "checkpoint"]
    checkpoint: Checkpoint
    note: bytes


@dataclass(slots=True)
class _Verification:
    connection: sa.Connection
    key: VerificationKey
    trusted: bytes | None
    anchored: Iterable[bytes]
    progress: Progress | None

    frontier: merkle.Frontier = field(default_factory=merkle.Frontier)
    index: FingerprintIndex = field(default_factory=FingerprintIndex)
    offsets: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    unfinished_tiles: dict[merkle.TileName, bytes] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    diverged: bool = False
    """The leaves are no longer those that were logged: what follows from them differs too and is not told again."""
    duplicates: int = 0
    kept: list[_Promise] = field(default_factory=list)
    """Checkpoints that came true, in order of size."""

    def run(self) -> VerifyReport:
        total = head(self.connection).size
        promises = self._promises()
        marked = duplicate_leaves(self.connection)
        for segment, reading in self._read(total):
            facts = self._facts(segment, reading)
            if facts is None:
                break
            self._grow(segment, facts.hashes, promises)
            self._check_records(segment, facts, marked)
            if self.progress:
                self.progress(self.frontier.size, total)
        else:
            self._check_tiles(self.unfinished_tiles)
        for promise in promises:
            self._fail(
                promise.kind,
                None,
                f"the checkpoint over {promise.checkpoint.size} leaves cannot be reached: the log ends after "
                f"{self.frontier.size}, so leaves were removed",
            )
        for leaf in marked:
            self._fail("index", leaf, f"leaf {leaf} is marked as a duplicate, but its event id is new")
        vouched = [promise for promise in self.kept if promise.kind == "checkpoint"]
        if self.frontier.size and not vouched:
            self._fail("checkpoint", None, f"no valid checkpoint vouches for any of the {self.frontier.size} leaves")
        return VerifyReport(
            size=self.frontier.size,
            root=self.frontier.root(),
            checkpoints=len(vouched),
            signed_size=vouched[-1].checkpoint.size if vouched else 0,
            last_checkpoint=vouched[-1].note if vouched else None,
            duplicates=self.duplicates,
            offsets=self.offsets,
            problems=tuple(self.problems),
            problem_count=self.problem_count,
        )

    def _fail(self, kind: ProblemKind, leaf: int | None, message: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(kind, leaf, message))

    def _promises(self) -> list[_Promise]:
        """The trusted and the stored checkpoints whose signatures are right, smallest first."""
        promises = []
        origin = None
        if self.trusted is not None:
            try:
                checkpoint = verify_checkpoint(self.trusted, self.key)
                promises.append(_Promise("trusted", checkpoint, self.trusted))
                origin = checkpoint.origin
            except CheckpointError as error:
                self._fail("trusted", None, f"the trusted checkpoint cannot be used: {error}")
        stored = checkpoint_notes(self.connection)
        for size, note in stored:
            try:
                checkpoint = verify_checkpoint(note, self.key, origin)
            except CheckpointError as error:
                self._fail("checkpoint", None, f"checkpoint over {size} leaves: {error}")
                continue
            if checkpoint.size != size:
                self._fail("checkpoint", None, f"the checkpoint stored for size {size} says {checkpoint.size}")
            origin = checkpoint.origin
            promises.append(_Promise("checkpoint", checkpoint, note))
        known = {note for _, note in stored}
        for note in self.anchored:
            if note in known:
                continue
            try:
                promises.append(_Promise("anchor", verify_checkpoint(note, self.key, origin), note))
            except CheckpointError as error:
                self._fail("anchor", None, f"an anchored checkpoint does not belong to this log: {error}")
        return sorted(promises, key=lambda promise: promise.checkpoint.size)

    def _segments(self) -> Iterator[_Segment]:
        following = -1
        while True:
            query = sa.select(segments).where(segments.c.first > following).order_by(segments.c.first)
            rows = self.connection.execute(query.limit(_PAGE_SEGMENTS)).all()
            if not rows:
                return
            for first, count, root, fingerprints, data in rows:
                yield _Segment(first, count, root, fingerprints, data)
            following = rows[-1].first

    def _read(self, total: int) -> Iterator[tuple[_Segment, Future[SegmentFacts]]]:
        """Every segment with what its leaves say, read in processes of their own if there is much to read."""
        if total < _PARALLEL_LEAVES:
            for segment in self._segments():
                facts: Future[SegmentFacts] = Future()
                try:
                    facts.set_result(read_segment(segment.data))
                except ValueError as error:
                    facts.set_exception(error)
                yield segment, facts
            return
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            ahead: deque[tuple[_Segment, Future[SegmentFacts]]] = deque()
            for segment in self._segments():
                ahead.append((segment, pool.submit(read_segment, segment.data)))
                if len(ahead) > _SEGMENTS_AHEAD:
                    yield ahead.popleft()
            yield from ahead

    def _facts(self, segment: _Segment, reading: Future[SegmentFacts]) -> SegmentFacts | None:
        """What the leaves of a segment say, None if the tree cannot be continued with it."""
        first, size = segment.first, self.frontier.size
        if first != size:
            self._fail("segment", size, f"the next segment begins with leaf {first} instead of {size}")
            return None
        try:
            facts = reading.result()
        except ValueError as error:
            self._fail("segment", first, f"the segment from leaf {first} on cannot be read: {error}")
            return None
        leaves = len(facts.hashes) // merkle.HASH_BYTES
        if leaves != segment.count:
            message = f"the segment from leaf {first} on holds {leaves} leaves instead of {segment.count}"
            self._fail("segment", first, message)
        return facts

    def _grow(self, segment: _Segment, hashes: bytes, promises: list[_Promise]) -> None:
        """Take the leaves into the tree and hold it against tiles, promised roots, and the segment's own root."""
        start, end = segment.first, segment.first + len(hashes) // merkle.HASH_BYTES
        while promises and promises[0].checkpoint.size <= end:
            promise = promises.pop(0)
            below = (promise.checkpoint.size - start) * merkle.HASH_BYTES
            self._append(hashes[(self.frontier.size - start) * merkle.HASH_BYTES : below])
            if self.frontier.root() == promise.checkpoint.root:
                self.kept.append(promise)
            else:
                where = {"trusted": "that you kept", "anchor": "anchored outside", "checkpoint": "in the log"}
                message = (
                    f"the first {promise.checkpoint.size} leaves are not those of the signed checkpoint "
                    f"{where[promise.kind]}"
                )
                self._fail(promise.kind, None, message)
        self._append(hashes[(self.frontier.size - start) * merkle.HASH_BYTES :])
        if not self.diverged and self.frontier.root() != segment.root:
            self.diverged = True
            message = f"the segment of leaves {start} to {end - 1} does not lead to the root stored with it"
            self._fail("segment", start, message)

    def _append(self, hashes: bytes) -> None:
        finished = {}
        for name, content in self.frontier.append(hashes).items():
            if len(content) == merkle.TILE_BYTES:
                self.unfinished_tiles.pop(name, None)
                finished[name] = content
            else:
                self.unfinished_tiles[name] = content
        self._check_tiles(finished)

    def _check_tiles(self, expected: dict[merkle.TileName, bytes]) -> None:
        stored = stored_tiles(self.connection, expected)
        for (level, number), content in expected.items():
            found = stored.get((level, number))
            if found == content or (level and self.diverged):
                continue
            if found is None:
                self._fail("tile", None, f"tile {number} of level {level} is missing")
            elif level or len(found) != len(content):
                self._fail("tile", None, f"tile {number} of level {level} does not follow from the leaves")
            else:
                self.diverged = True
                for start in range(0, len(content), merkle.HASH_BYTES):
                    if found[start : start + merkle.HASH_BYTES] != content[start : start + merkle.HASH_BYTES]:
                        leaf = number * merkle.TILE_HASHES + start // merkle.HASH_BYTES
                        self._fail("leaf", leaf, f"leaf {leaf} is not the one that was appended: its hash differs")

    def _check_records(self, segment: _Segment, facts: SegmentFacts, marked: dict[int, int]) -> None:
        """Offsets without gaps, and the index as the event ids say."""
        for position, reason in facts.unreadable:
            self._fail("record", segment.first + position, f"leaf {segment.first + position} is not a record: {reason}")
        for run in facts.runs:
            first, after = self.offsets.get((run.topic, run.partition), (run.first, run.first))
            if run.first != after:
                leaf = segment.first + run.position
                fault = "are missing" if run.first > after else "come again"
                low, high = sorted((run.first, after))
                message = f"{run.topic}/{run.partition}: offsets {low} to {high - 1} {fault} at leaf {leaf}"
                self._fail("offset", leaf, message)
            self.offsets[run.topic, run.partition] = (first, run.after)
        if facts.fingerprints != segment.fingerprints:
            message = f"the fingerprints stored with the segment from leaf {segment.first} on are wrong"
            self._fail("index", segment.first, message)
        repeated = first_occurrences(self.index, segment.first, facts.fingerprints, Leaves(self.connection).leaf)
        self.duplicates += len(repeated)
        for leaf, earlier in repeated.items():
            if marked.pop(leaf, None) != earlier:
                message = f"leaf {leaf} repeats the event id of leaf {earlier} but is not marked so"
                self._fail("index", leaf, message)


def _read_only_engine(url: str, schema: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            isolation_level="REPEATABLE READ",
            connect_args={"options": f"-csearch_path={schema} -cdefault_transaction_read_only=on"},
        )
    path = Path(parsed.database or "")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a database file: name the governance service's database")
    location = f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true"
    engine = sa.create_engine(location, connect_args={"isolation_level": None})

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine
