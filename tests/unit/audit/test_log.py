"""The stored log: what goes in comes out byte for byte, is found by id, and survives rollbacks and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from evenkeel.contracts.envelope import Record
from evenkeel.libs.audit import log, merkle
from evenkeel.libs.audit.checkpoint import verify_checkpoint
from evenkeel.libs.audit.fingerprints import NO_ID
from evenkeel.libs.audit.leaves import decode_record, encode_record, event_id, read_segment
from evenkeel.libs.errors import Stop

if TYPE_CHECKING:
    from tests.unit.audit.conftest import LogOnDisk


def test_appends_and_reads_back_byte_for_byte(on_disk: LogOnDisk) -> None:
    records = [on_disk.record(partition=number % 3) for number in range(2500)]
    first = on_disk.append(records[:1])
    rest = on_disk.append(records[1:])
    assert (first.first, first.count, rest.first, rest.count) == (0, 1, 1, 2499)
    leaves = [encode_record(record) for record in records]
    frontier = merkle.Frontier()
    frontier.append(b"".join(merkle.leaf_hash(leaf) for leaf in leaves))
    with on_disk.store.begin() as tx:
        assert log.head(tx.connection) == log.Head(2500, frontier.root()) == log.Head(2500, rest.root)
        reader = log.Leaves(tx.connection)
        for number in (0, 1, 1024, 1025, 2499):
            assert reader.leaf(number) == leaves[number]
            found = reader.record(number)
            record = records[number]
            assert (found.topic, found.partition, found.offset) == (record.topic, record.partition, record.offset)
            assert (found.timestamp, found.key, found.value) == (record.timestamp, record.key, record.value)
            assert found.headers == list(record.headers)
        for number in (-1, 2500):
            with pytest.raises(LookupError):
                reader.leaf(number)


def test_proofs_come_from_the_stored_tiles(on_disk: LogOnDisk) -> None:
    records = [on_disk.record() for _ in range(700)]
    for start in range(0, 700, 70):
        on_disk.append(records[start : start + 70])
    with on_disk.store.begin() as tx:
        tiles = log.SqlTiles(tx.connection)
        root = merkle.root(tiles, 700)
        proof = merkle.inclusion_proof(tiles, 333, 700)
        assert merkle.verify_inclusion(merkle.leaf_hash(encode_record(records[333])), 333, 700, proof, root)
        consistency = merkle.consistency_proof(tiles, 280, 700)
        assert merkle.verify_consistency(280, 700, merkle.root(tiles, 280), root, consistency)


def test_segments_end_before_they_grow_too_large(on_disk: LogOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    large = on_disk.raw_record("t", 0, 0, value=b"x" * (log.SEGMENT_BYTES + 1))
    on_disk.append([large, large, *(on_disk.record() for _ in range(log.SEGMENT_LEAVES + 1))])
    counts = on_disk.execute(sa.select(log.segments.c.count).order_by(log.segments.c.first)).scalars().all()
    assert counts == [1, 1, log.SEGMENT_LEAVES, 1]


def test_every_id_is_found_and_duplicates_are_marked(on_disk: LogOnDisk) -> None:
    twice = [on_disk.record(event_id="same"), on_disk.record(), on_disk.record(event_id="same")]
    assert on_disk.append(twice).duplicates == (2,)
    again = on_disk.append([on_disk.record(event_id="same"), on_disk.record(event_id="other")])
    assert again.duplicates == (3,)
    with on_disk.store.begin() as tx:
        assert [number for number, _ in on_disk.audit.find(tx.connection, "same")] == [0, 2, 3]
        assert [record.offset for _, record in on_disk.audit.find(tx.connection, "other")] == [4]
        assert on_disk.audit.find(tx.connection, "unknown") == []
        assert log.duplicate_leaves(tx.connection) == {2: 0, 3: 0}
        assert log.duplicate_count(tx.connection) == 2
        assert [number for number, _ in log.AuditLog().find(tx.connection, "same")] == [0, 2, 3]


def test_equal_fingerprints_of_different_ids_are_no_duplicate(
    on_disk: LogOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "evenkeel.libs.audit.leaves.fingerprint", lambda identifier: b"equal..." if identifier else NO_ID
    )
    monkeypatch.setattr("evenkeel.libs.audit.log.fingerprint", lambda identifier: b"equal...")
    assert on_disk.append([on_disk.record(event_id="a"), on_disk.record(event_id="b")]).duplicates == ()
    assert on_disk.append([on_disk.record(event_id="c"), on_disk.record(event_id="b")]).duplicates == (3,)
    with on_disk.store.begin() as tx:
        assert [number for number, _ in on_disk.audit.find(tx.connection, "b")] == [1, 3]


def test_records_that_are_no_events_are_logged_as_they_are(on_disk: LogOnDisk) -> None:
    strange = on_disk.raw_record("t", 0, 5, [("ce_id", None), ("\u00e9", b"\xff"), ("ce_id", b"late")])
    bare = on_disk.raw_record("t", 1, 0, value=b"\xff\x00")
    assert on_disk.append([strange, bare]).duplicates == ()
    with on_disk.store.begin() as tx:
        found = log.Leaves(tx.connection).record(0)
        assert found.all_headers == [("ce_id", None), ("\u00e9", b"\xff"), ("ce_id", b"late")]
        assert event_id(found.headers) == b"late"
        assert [number for number, _ in on_disk.audit.find(tx.connection, "late")] == [0]
        assert log.Leaves(tx.connection).record(1).value == b"\xff\x00"


def test_what_the_verifier_reads_is_what_the_log_indexed(on_disk: LogOnDisk) -> None:
    records = [
        on_disk.record(),
        on_disk.raw_record("t", 0, 0),
        on_disk.raw_record("t", 0, 1, [("ce_id", b"first"), ("ce_id", b"second")]),
        on_disk.raw_record("t", 0, 2, [*((f"h{n}", b"") for n in range(5)), ("ce_id", b"far")]),
        on_disk.raw_record("t", 0, 7, [("ce_id", None), ("ce_id", b"x")]),
    ]
    on_disk.append(records)
    row = on_disk.execute(sa.select(log.segments.c.fingerprints, log.segments.c.data)).one()
    facts = read_segment(row.data)
    assert facts.fingerprints == row.fingerprints
    assert [(run.topic, run.position, run.first, run.after) for run in facts.runs] == [
        ("feature.vector-computed.v1", 0, 0, 1),
        ("t", 1, 0, 3),
        ("t", 4, 7, 8),
    ]


def test_a_rolled_back_append_leaves_no_trace(on_disk: LogOnDisk) -> None:
    on_disk.fill(300)
    lost = on_disk.record(event_id="lost")

    def records_and_crash() -> Iterator[Record]:
        yield lost
        raise RuntimeError("crash while decoding")

    with pytest.raises(RuntimeError, match="decoding"):
        on_disk.append(records_and_crash())
    connection = on_disk.store.connection
    connection.begin()
    on_disk.audit.append(connection, [lost])
    connection.rollback()
    other = on_disk.append([on_disk.record(event_id="kept"), on_disk.record(event_id="lost")])
    assert (other.first, other.duplicates) == (300, ())
    fresh = log.AuditLog()
    with on_disk.store.begin() as tx:
        assert [number for number, _ in on_disk.audit.find(tx.connection, "lost")] == [301]
        assert fresh.append(tx.connection, []).root == other.root


def test_continues_after_a_restart_and_after_another_writer(on_disk: LogOnDisk) -> None:
    on_disk.fill(600)
    other = log.AuditLog()
    with on_disk.store.begin() as tx:
        other.append(tx.connection, [on_disk.record(event_id="theirs")])
    mine = on_disk.append([on_disk.record(event_id="theirs")])
    assert (mine.first, mine.duplicates) == (601, (601,))
    with on_disk.store.begin() as tx:
        assert merkle.root(log.SqlTiles(tx.connection), 602) == mine.root


def test_damaged_tiles_stop_the_writer(on_disk: LogOnDisk) -> None:
    on_disk.fill(300)
    on_disk.execute(sa.update(log.tiles).where(log.tiles.c.level == 1).values(hashes=bytes(32)))
    with on_disk.store.begin() as tx, pytest.raises(Stop, match="do not fit"):
        log.AuditLog().open(tx.connection)
    on_disk.execute(sa.delete(log.tiles).where(log.tiles.c.level == 1))
    with on_disk.store.begin() as tx, pytest.raises(Stop, match="lacks the tile"):
        log.AuditLog().open(tx.connection)


def test_signs_what_is_new(on_disk: LogOnDisk) -> None:
    assert on_disk.sign() is None
    appended = on_disk.fill(10)
    note = on_disk.sign(time_us=1_000_000)
    assert note is not None
    checkpoint = verify_checkpoint(note, on_disk.key.verification_key, on_disk.origin)
    assert (checkpoint.size, checkpoint.root) == (10, appended.root)
    assert checkpoint.extensions == ("time 1970-01-01T00:00:01Z",)
    assert on_disk.sign() is None
    with on_disk.store.begin() as tx:
        assert log.latest_checkpoint(tx.connection) == note
    on_disk.fill(1)
    assert on_disk.sign() is not None


def test_leaf_is_the_documented_msgpack(on_disk: LogOnDisk) -> None:
    record = on_disk.raw_record("t", 1, 2, [("h", b"v")], b"k")
    leaf = bytes.fromhex("97a1740102ffc0c4016b9192a168c40176")
    assert encode_record(record) == leaf
    assert decode_record(leaf).headers == [("h", b"v")]
