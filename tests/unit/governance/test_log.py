"""Every record becomes a leaf, whatever it holds; what can be read becomes a fact, once; what grew is signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenkeel.apps.cli.verify import NothingToVerify, verify_data_folder
from evenkeel.contracts.governance import CheckpointSigned
from evenkeel.libs.audit.anchor import Anchor, anchored_notes
from evenkeel.libs.audit.checkpoint import verify_checkpoint
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.service import Derived
from evenkeel.services.governance import store
from tests.model_life import MODEL, Consumed, Life, consumed
from tests.unit.governance.conftest import Governance

TOPIC = "registry.champion-changed.v1"


def champion_records() -> list[Consumed]:
    return [record for record in consumed(Life().tell().records) if record.topic == TOPIC]


def damaged() -> list[Consumed]:
    """One record for each way in which a control record can be unreadable."""
    good = champion_records()[0]

    def with_header(name: str, value: bytes | None) -> list[tuple[str, bytes]]:
        changed = [(n, value if n == name else v) for n, v in good.headers]
        return [(n, v) for n, v in changed if not (n == name and value == b"absent")]  # type: ignore[misc]

    value = good.value or b""
    kinds = [
        (good.headers, b"\xff\x00 not JSON"),
        (good.headers, b""),
        (good.headers, None),
        (good.headers, b"[" * 100_000),
        (good.headers, value.replace(b'"epoch":1', b'"epoch":%d' % 10**30)),
        (good.headers, value.replace(b'"epoch":1', b'"epoch":-1')),
        ((), value),
        (with_header("ce_id", None), value),
        (with_header("ce_id", b"absent"), value),
        (with_header("ce_id", b"\xff"), value),
        (with_header("ce_id", b"x" * 5_000), value),
        (with_header("ce_id", b"a\x00b"), value),
        (with_header("ce_type", b"io.evenkeel.another.v1"), value),
        (with_header("ce_time", b"yesterday"), value),
    ]
    return [Consumed(TOPIC, 0, n, 1, None, data, headers) for n, (headers, data) in enumerate(kinds)]


def test_what_cannot_be_read_is_a_leaf_all_the_same(governance: Governance) -> None:
    records = damaged()
    governance.log(records)
    assert governance.context.opaque == len(records)
    assert governance.context.size == len(records)
    assert governance.rows(store.facts) == []
    governance.tick(10 * SECOND_US)
    report = verify_data_folder(governance.data_dir)
    assert (report["ok"], report["leaves"]) == (True, len(records))


def test_the_data_plane_is_not_read(governance: Governance) -> None:
    governance.log([Consumed("feature.vector-computed.v1", 0, 0, 1, None, b"\xff", ())])
    assert (governance.context.size, governance.context.opaque) == (1, 0)


def test_of_a_repeated_fact_the_first_counts_and_both_are_logged(governance: Governance) -> None:
    first, *_ = champion_records()
    again = Consumed(
        TOPIC, 0, 1, 2, first.key, (first.value or b"").replace(b'"version":1', b'"version":9'), first.headers
    )
    governance.log([first, again])
    (fact,) = governance.rows(store.facts)
    assert (fact.leaf, fact.number) == (0, 1)
    assert '"version":1' in fact.payload
    assert (governance.context.size, governance.context.duplicates) == (2, 1)


def test_a_growing_log_is_signed_at_most_so_often(governance: Governance) -> None:
    life = Life().tell()
    assert governance.tick(100 * SECOND_US) == []
    governance.take(life.records[:10])
    (signed,) = governance.tick(101 * SECOND_US)
    assert isinstance(signed, Derived)
    assert isinstance(signed.payload, CheckpointSigned)
    assert signed.payload.size == 10
    governance.take(life.records[10:])
    assert governance.tick(102 * SECOND_US) == []
    assert len(governance.tick(106 * SECOND_US)) == 1
    assert governance.tick(111 * SECOND_US) == []
    assert [size for size, _ in governance.notes()] == [10, len(life.records)]
    key = governance.context.key.verification_key
    for _, note in governance.notes():
        verify_checkpoint(note, key, governance.context.origin)


def test_checkpoints_are_anchored_behind_the_commit_and_caught_up_after_a_crash(governance: Governance) -> None:
    life = Life().tell()
    governance.take(life.records[:5])
    with pytest.raises(RuntimeError, match="crash"):
        governance.sign_and_crash()
    governance.transactions.load()
    assert list(anchored_notes(governance.data_dir)) == []
    for n, records in enumerate((life.records[5:7], life.records[7:])):
        governance.take(records)
        governance.tick((20 + 10 * n) * SECOND_US)
    notes = [note for _, note in governance.notes()]
    assert list(anchored_notes(governance.data_dir)) == notes
    (path,) = (governance.data_dir / "checkpoints").glob("*.txt")
    whole = path.read_bytes()
    for kept in (0, 1, len(notes[0]) - 3, len(notes[0]), len(notes[0]) + 1, len(notes[0]) + 60, len(whole) - 1):
        path.write_bytes(whole[:kept])
        governance.transactions.load()
        assert path.read_bytes() == whole, kept
    assert Anchor(path).last_size == len(life.records)


def test_the_log_goes_on_after_a_restart(governance: Governance) -> None:
    life = Life().tell()
    governance.take(life.records[:20])
    governance.tick(10 * SECOND_US)
    governance.close()
    again = Governance(governance.data_dir)
    again.offsets = governance.offsets
    assert (again.context.size, again.context.signed_size, again.context.origin) == (20, 20, governance.context.origin)
    again.take(life.records[20:])
    again.tick(20 * SECOND_US)
    report = verify_data_folder(governance.data_dir)
    assert (report["ok"], report["leaves"], report["checkpoints"]) == (True, len(life.records), 2)
    assert again.walk(life.ids[f"{MODEL}-o-1"]).missing == []
    again.store.close()


def test_there_must_be_something_to_verify(tmp_path: Path) -> None:
    with pytest.raises(NothingToVerify, match=r"governance\.pub does not exist"):
        verify_data_folder(tmp_path)
    governance = Governance(tmp_path)
    governance.close()
    (tmp_path / "governance.db").unlink()
    with pytest.raises(NothingToVerify, match=r"governance\.db is not a database file"):
        verify_data_folder(tmp_path)
