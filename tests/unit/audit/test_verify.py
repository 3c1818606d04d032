"""The verifier: passes an honest log and names what was done to a dishonest one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel.libs.audit import log, verify
from evenkeel.libs.audit.checkpoint import Checkpoint, read_checkpoint, sign_checkpoint
from evenkeel.libs.audit.leaves import decode_record, encode_record, pack, unpack
from evenkeel.libs.audit.verify import VerifyReport, read_trusted, verify_log, write_trusted
from evenkeel.libs.keys import signing_key

if TYPE_CHECKING:
    from tests.unit.audit.conftest import LogOnDisk

LEAVES = 3000


@pytest.fixture
def filled(on_disk: LogOnDisk) -> LogOnDisk:
    """3000 leaves in uneven batches with a checkpoint after each."""
    for count in (1, 700, 1299, 1000):
        on_disk.fill(count)
        on_disk.sign()
    return on_disk


@pytest.fixture
def repeating(on_disk: LogOnDisk) -> LogOnDisk:
    """Four leaves in one segment, of which two have one id and one has its id far behind in its headers."""
    headers = [*((f"h\u00e9{n}", b"") for n in range(5)), ("ce_id", b"far")]
    on_disk.append(
        [
            on_disk.record(event_id="twice"),
            on_disk.record(event_id="twice"),
            on_disk.raw_record("t\u00e9", 0, 0, headers),
            on_disk.raw_record("t\u00e9", 0, 1, headers),
        ]
    )
    on_disk.sign()
    return on_disk


def _verify(disk: LogOnDisk, trusted: bytes | None = None) -> VerifyReport:
    return verify_log(disk.url, disk.key.verification_key, trusted)


def _kinds(report: VerifyReport) -> set[str]:
    assert report.ok == (not report.problems)
    return {problem.kind for problem in report.problems}


def _change_segment(disk: LogOnDisk, first: int, change: Callable[[list[bytes]], list[bytes]]) -> None:
    where = log.segments.c.first == first
    data = disk.execute(sa.select(log.segments.c.data).where(where)).scalar_one()
    disk.execute(sa.update(log.segments).where(where).values(data=pack(change(unpack(data)))))


def test_an_honest_log_passes(filled: LogOnDisk) -> None:
    calls: list[tuple[int, int]] = []
    report = verify_log(filled.url, filled.key.verification_key, progress=lambda *done: calls.append(done))
    assert report.ok, report.problems
    assert (report.size, report.checkpoints, report.signed_size, report.duplicates) == (LEAVES, 4, LEAVES, 0)
    assert (
        report.offsets == {("feature.vector-computed.v1", partition): (0, 1000) for partition in range(3)}
        or sum(after - first for first, after in report.offsets.values()) == LEAVES
    )
    assert calls[-1] == (LEAVES, LEAVES)
    with filled.store.begin() as tx:
        assert report.root == log.head(tx.connection).root
        assert report.last_checkpoint == log.latest_checkpoint(tx.connection)


def test_a_log_that_grew_honestly_fits_the_checkpoint_kept_before(filled: LogOnDisk, tmp_path: Path) -> None:
    kept = tmp_path / "auditor" / "checkpoint"
    assert read_trusted(kept) is None
    first = _verify(filled)
    assert first.last_checkpoint is not None
    write_trusted(kept, first.last_checkpoint)
    filled.fill(50)
    report = _verify(filled, read_trusted(kept))
    assert report.ok
    assert (report.size, report.signed_size) == (LEAVES + 50, LEAVES)


def test_duplicates_are_no_fault(filled: LogOnDisk) -> None:
    filled.append([filled.record(event_id="twice"), filled.record(event_id="twice")])
    filled.sign()
    report = _verify(filled)
    assert report.ok
    assert report.duplicates == 1


def test_reading_in_processes_gives_the_same_report(filled: LogOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _verify(filled)
    monkeypatch.setattr(verify, "_PARALLEL_LEAVES", 1)
    assert _verify(filled) == alone
    filled.execute(sa.update(log.segments).where(log.segments.c.first == 701).values(data=b"damaged"))
    assert _kinds(_verify(filled)) == {"segment", "checkpoint"}


def test_an_empty_log_passes_and_an_unsigned_one_does_not(on_disk: LogOnDisk) -> None:
    assert _verify(on_disk).ok
    on_disk.fill(5)
    report = _verify(on_disk)
    assert [problem.message for problem in report.problems] == ["no valid checkpoint vouches for any of the 5 leaves"]


def test_a_changed_leaf_is_named(filled: LogOnDisk) -> None:
    def change(leaves: list[bytes]) -> list[bytes]:
        forged = filled.changed(decode_record(leaves[5]), b'{"values":[0]}')
        return [*leaves[:5], encode_record(forged), *leaves[6:]]

    _change_segment(filled, 701, change)
    report = _verify(filled)
    assert {"leaf", "checkpoint"} <= _kinds(report) <= {"leaf", "checkpoint", "segment"}
    assert [problem.leaf for problem in report.problems if problem.kind == "leaf"] == [706]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), leaf=st.integers(0, 3))
def test_one_flipped_bit_names_its_leaf(repeating: LogOnDisk, where: float, bit: int, leaf: int) -> None:
    def flip(leaves: list[bytes]) -> list[bytes]:
        forged = bytearray(leaves[leaf])
        forged[int(where * len(forged))] ^= 1 << bit
        return [*leaves[:leaf], bytes(forged), *leaves[leaf + 1 :]]

    honest = repeating.execute(sa.select(log.segments.c.data)).scalar_one()
    _change_segment(repeating, 0, flip)
    try:
        report = _verify(repeating)
    finally:
        repeating.execute(sa.update(log.segments).values(data=honest))
    assert [problem.leaf for problem in report.problems if problem.kind == "leaf"] == [leaf]
    assert "checkpoint" in _kinds(report)


@pytest.mark.parametrize(
    "change",
    [
        lambda leaves: leaves[:-1],
        lambda leaves: leaves[1:],
        lambda leaves: [leaves[1], leaves[0], *leaves[2:]],
        lambda leaves: [*leaves, leaves[-1]],
    ],
    ids=["last removed", "first removed", "swapped", "added"],
)
def test_removed_swapped_and_added_leaves_are_noticed(
    filled: LogOnDisk, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    _change_segment(filled, 701, change)
    assert {"segment", "checkpoint"} & _kinds(_verify(filled))


def test_a_removed_segment_is_noticed(filled: LogOnDisk) -> None:
    filled.execute(sa.delete(log.segments).where(log.segments.c.first == 701))
    report = _verify(filled)
    assert report.problems[0].message == "the next segment begins with leaf 1725 instead of 701"


def test_a_removed_end_is_noticed(filled: LogOnDisk) -> None:
    filled.execute(sa.delete(log.segments).where(log.segments.c.first >= 2000))
    assert any("leaves were removed" in problem.message for problem in _verify(filled).problems)


def test_an_end_removed_with_its_checkpoint_is_noticed_by_who_kept_one(filled: LogOnDisk) -> None:
    kept = _verify(filled).last_checkpoint
    filled.execute(sa.delete(log.segments).where(log.segments.c.first >= 2000))
    filled.execute(sa.delete(log.checkpoints).where(log.checkpoints.c.size > 2000))
    assert "trusted" in _kinds(_verify(filled, kept))


def _rewrite(filled: LogOnDisk) -> None:
    """Append the same records but for one, anew, as somebody who holds the database would."""
    records = []
    with filled.store.begin() as tx:
        leaves = log.Leaves(tx.connection)
        for number in range(LEAVES):
            record = leaves.record(number)
            records.append(filled.changed(record, b'{"values":[0]}' if number == 1000 else record.value))
        for table in (log.segments, log.tiles, log.duplicates):
            tx.connection.execute(sa.delete(table))
    filled.audit = log.AuditLog()
    filled.append(records)


def test_a_log_rewritten_without_the_key_contradicts_its_checkpoints(filled: LogOnDisk) -> None:
    _rewrite(filled)
    report = _verify(filled)
    assert _kinds(report) == {"checkpoint"}
    assert (report.checkpoints, report.signed_size) == (2, 701)


def test_a_log_rewritten_with_the_key_contradicts_the_checkpoint_kept_before(filled: LogOnDisk) -> None:
    kept = _verify(filled).last_checkpoint
    _rewrite(filled)
    filled.execute(sa.delete(log.checkpoints))
    filled.sign()
    assert _verify(filled).ok
    assert _kinds(_verify(filled, kept)) == {"trusted"}


def test_forged_and_foreign_checkpoints_are_noticed(filled: LogOnDisk, tmp_path: Path) -> None:
    other = signing_key(tmp_path / "other", "governance")
    with filled.store.begin() as tx:
        note = log.latest_checkpoint(tx.connection)
    assert note is not None
    forged = sign_checkpoint(read_checkpoint(note), other)
    assert _kinds(_verify(filled, forged)) == {"trusted"}
    assert _kinds(verify_log(filled.url, other.verification_key)) == {"checkpoint"}
    foreign = sign_checkpoint(Checkpoint("evenkeel/other", LEAVES, read_checkpoint(note).root), filled.key)
    assert "checkpoint" in _kinds(_verify(filled, foreign))
    filled.execute(sa.update(log.checkpoints).where(log.checkpoints.c.size == LEAVES).values(note=forged))
    assert _kinds(_verify(filled)) == {"checkpoint"}


def test_a_checkpoint_stored_under_another_size_is_noticed(filled: LogOnDisk) -> None:
    filled.execute(sa.update(log.checkpoints).where(log.checkpoints.c.size == 701).values(size=702))
    assert [problem.message for problem in _verify(filled).problems] == ["the checkpoint stored for size 702 says 701"]


def test_a_wrong_root_of_a_segment_is_named(filled: LogOnDisk) -> None:
    filled.execute(sa.update(log.segments).where(log.segments.c.first == 701).values(root=bytes(32)))
    report = _verify(filled)
    assert [(problem.kind, problem.leaf) for problem in report.problems] == [("segment", 701)]


@pytest.mark.parametrize("level", [0, 1])
def test_wrong_and_missing_tiles_are_named(filled: LogOnDisk, level: int) -> None:
    where = sa.and_(log.tiles.c.level == level, log.tiles.c.number == 0)
    hashes = filled.execute(sa.select(log.tiles.c.hashes).where(where)).scalar_one()
    filled.execute(sa.update(log.tiles).where(where).values(hashes=bytes(32) + hashes[32:]))
    report = _verify(filled)
    assert [(problem.kind, problem.leaf) for problem in report.problems] == [("tile", None) if level else ("leaf", 0)]
    filled.execute(sa.delete(log.tiles).where(where))
    assert _kinds(_verify(filled)) == {"tile"}


def test_gaps_and_repeats_of_offsets_are_named(on_disk: LogOnDisk) -> None:
    on_disk.append([on_disk.raw_record("t", 0, offset) for offset in (4, 5, 7, 8, 7)])
    on_disk.append([on_disk.raw_record("t", 1, 3), on_disk.raw_record("t", 0, 8), on_disk.raw_record("t", 1, 5)])
    on_disk.sign()
    report = _verify(on_disk)
    assert [(problem.kind, problem.leaf, problem.message) for problem in report.problems] == [
        ("offset", 2, "t/0: offsets 6 to 6 are missing at leaf 2"),
        ("offset", 4, "t/0: offsets 7 to 8 come again at leaf 4"),
        ("offset", 7, "t/1: offsets 4 to 4 are missing at leaf 7"),
    ]
    assert report.offsets == {("t", 0): (4, 9), ("t", 1): (3, 6)}


def test_a_wrong_index_is_named(filled: LogOnDisk) -> None:
    filled.append([filled.record(event_id="twice"), filled.record(event_id="twice")])
    filled.sign()
    filled.execute(sa.update(log.duplicates).values(leaf=7))
    messages = [problem.message for problem in _verify(filled).problems]
    assert messages == [
        f"leaf {LEAVES + 1} repeats the event id of leaf {LEAVES} but is not marked so",
        "leaf 7 is marked as a duplicate, but its event id is new",
    ]
    fingerprints = log.segments.c.fingerprints
    filled.execute(sa.update(log.segments).where(log.segments.c.first == 0).values({fingerprints: bytes(8)}))
    assert _verify(filled).problems[0].message == "the fingerprints stored with the segment from leaf 0 on are wrong"


@pytest.mark.parametrize(
    "forged",
    [b"\x00", b"", b"\x97\xa1t\x00\x00\x00" + b"\x91" * 5_000, b"\x98\xa1t\x00\x00\x00\xc0\xc0\x90" + b"\x91" * 5_000],
)
def test_a_leaf_that_is_no_record_is_named(filled: LogOnDisk, forged: bytes) -> None:
    _change_segment(filled, 0, lambda leaves: [forged])
    assert ("record", 0) in [(problem.kind, problem.leaf) for problem in _verify(filled).problems]


def test_problems_are_counted_beyond_those_told(on_disk: LogOnDisk) -> None:
    on_disk.append([on_disk.raw_record("t", 0, 2 * number) for number in range(300)])
    on_disk.sign()
    report = _verify(on_disk)
    assert (report.problem_count, len(report.problems), report.ok) == (299, verify.MAX_PROBLEMS, False)


def test_a_missing_database_is_an_error_and_is_not_made(filled: LogOnDisk, tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(FileNotFoundError, match=r"none\.db"):
        verify_log(f"sqlite:///{path}", filled.key.verification_key)
    assert not path.exists()
