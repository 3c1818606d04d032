"""The id index against a plain dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel.libs.audit.fingerprints import MAX_LEAVES, NO_ID, FingerprintIndex, fingerprint

fingerprints = st.one_of(st.just(NO_ID), st.integers(1, 30).map(lambda number: fingerprint(b"%d" % number)))


@given(st.lists(st.lists(fingerprints, max_size=40), max_size=12))
def test_finds_every_leaf_of_a_fingerprint_and_reports_repeats(batches: list[list[bytes]]) -> None:
    index = FingerprintIndex()
    seen: dict[bytes, list[int]] = {}
    first = 0
    for batch in batches:
        for leaf, value in enumerate(batch, first):
            seen.setdefault(value, []).append(leaf)
        repeated = index.add(b"".join(batch), first)
        earlier = {value for value, leaves in seen.items() if leaves[0] < first}
        assert repeated == [
            leaf
            for leaf, value in enumerate(batch, first)
            if value != NO_ID and (value in earlier or batch.count(value) > 1)
        ]
        first += len(batch)
    for value, leaves in seen.items():
        assert index.find(value) == ([] if value == NO_ID else leaves)
    loaded = FingerprintIndex.load(b"".join(batch) for batch in batches)
    assert len(loaded) == len(index) == sum(len(leaves) for value, leaves in seen.items() if value != NO_ID)
    for value in seen:
        assert loaded.find(value) == index.find(value)


def test_runs_stay_few() -> None:
    index = FingerprintIndex()
    for number in range(500):
        index.add(fingerprint(b"%d" % number), number)
    assert len(index._runs) <= 10


def test_too_long_a_log_is_refused() -> None:
    with pytest.raises(OverflowError, match="start a new log"):
        FingerprintIndex().add(fingerprint(b"x"), MAX_LEAVES)
