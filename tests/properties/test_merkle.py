"""The Merkle tree against the recursive definitions of RFC 9162, for any size, split and tampering."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel.libs.audit import merkle

MAX_SIZE = 70_000  # three levels of tiles
LEAVES = [merkle.leaf_hash(b"leaf %d" % index) for index in range(MAX_SIZE)]
sizes = st.one_of(st.integers(1, 40), st.integers(250, 260), st.integers(510, 515), st.integers(1, 3000))
large_sizes = st.one_of(sizes, st.sampled_from([65_535, 65_536, 65_537, 66_000, MAX_SIZE]))


def _build(size: int) -> merkle.MemoryTiles:
    tiles = merkle.MemoryTiles()
    tiles.update(merkle.Frontier().append(b"".join(LEAVES[:size])))
    return tiles


ALL = _build(MAX_SIZE)


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word by word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162, section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*naive_path(index, leaves[:split]), naive_root(leaves[split:])]
    return [*naive_path(index - split, leaves[split:]), naive_root(leaves[:split])]


def naive_subproof(old_size: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 9162, section 2.1.4.1."""
    if old_size == len(leaves):
        return [] if whole else [naive_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if old_size <= split:
        return [*naive_subproof(old_size, leaves[:split], whole), naive_root(leaves[split:])]
    return [*naive_subproof(old_size - split, leaves[split:], False), naive_root(leaves[:split])]


@given(st.lists(st.integers(0, 700), max_size=8))
@settings(deadline=None)
def test_any_split_into_batches_gives_the_same_tree(batches: list[int]) -> None:
    frontier, tiles, start = merkle.Frontier(), merkle.MemoryTiles(), 0
    for count in batches:
        tiles.update(frontier.append(b"".join(LEAVES[start : start + count])))
        start += count
        frontier = merkle.Frontier.load(tiles, start)
    assert frontier.root() == naive_root(LEAVES[:start])
    assert tiles == _build(start)


@given(sizes)
@settings(deadline=None)
def test_root_of_every_earlier_size_can_be_read_from_the_tiles(size: int) -> None:
    assert merkle.root(ALL, size) == naive_root(LEAVES[:size])


@given(large_sizes, st.data())
@settings(deadline=None, max_examples=60)
def test_inclusion_proof_verifies_and_nothing_else_does(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    root = merkle.root(ALL, size)
    proof = merkle.inclusion_proof(ALL, index, size)
    if size < 1000:
        assert proof == naive_path(index, LEAVES[:size])
    assert merkle.verify_inclusion(LEAVES[index], index, size, proof, root)

    other = data.draw(st.integers(0, size).filter(lambda number: number != index))
    assert not merkle.verify_inclusion(LEAVES[other], index, size, proof, root)
    assert not merkle.verify_inclusion(LEAVES[index], other, size, proof, root)
    assert not merkle.verify_inclusion(LEAVES[index], index, size, [*proof, root], root)
    for position in range(len(proof)):
        assert not merkle.verify_inclusion(LEAVES[index], index, size, _flip(proof, position), root)
        assert not merkle.verify_inclusion(LEAVES[index], index, size, proof[:position] + proof[position + 1 :], root)


@given(large_sizes, st.data())
@settings(deadline=None, max_examples=60)
def test_consistency_proof_verifies_and_nothing_else_does(new_size: int, data: st.DataObject) -> None:
    old_size = data.draw(st.integers(1, new_size))
    old_root, new_root = merkle.root(ALL, old_size), merkle.root(ALL, new_size)
    proof = merkle.consistency_proof(ALL, old_size, new_size)
    if new_size < 1000:
        assert proof == naive_subproof(old_size, LEAVES[:new_size])
    assert merkle.verify_consistency(old_size, new_size, old_root, new_root, proof)

    rewritten = merkle.leaf_hash(b"rewritten")
    assert not merkle.verify_consistency(old_size, new_size, rewritten, new_root, proof)
    assert not merkle.verify_consistency(old_size, new_size, old_root, rewritten, proof)
    assert not merkle.verify_consistency(old_size, new_size, old_root, new_root, [*proof, new_root])
    for position in range(len(proof)):
        assert not merkle.verify_consistency(old_size, new_size, old_root, new_root, _flip(proof, position))
        shortened = proof[:position] + proof[position + 1 :]
        assert not merkle.verify_consistency(old_size, new_size, old_root, new_root, shortened)


def _flip(proof: list[bytes], position: int) -> list[bytes]:
    return [*proof[:position], bytes([proof[position][0] ^ 1]) + proof[position][1:], *proof[position + 1 :]]


@given(st.integers(2, 600), st.data())
@settings(deadline=None)
def test_a_log_with_one_leaf_changed_is_consistent_with_no_root_from_after_that_leaf(
    size: int, data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, size - 2))
    old_size = data.draw(st.integers(changed + 1, size - 1))
    tampered = merkle.MemoryTiles()
    leaves = [*LEAVES[:changed], merkle.leaf_hash(b"forged"), *LEAVES[changed + 1 : size]]
    tampered.update(merkle.Frontier().append(b"".join(leaves)))
    proof = merkle.consistency_proof(tampered, old_size, size)
    honest_root = merkle.root(ALL, old_size)
    assert not merkle.verify_consistency(old_size, size, honest_root, merkle.root(tampered, size), proof)


# The reference trees of certificate transparency (google/certificate-transparency, merkle tree tests).
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_of_the_reference_trees() -> None:
    assert merkle.Frontier().root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    frontier = merkle.Frontier()
    for data, expected in zip(INPUTS, ROOTS, strict=True):
        frontier.append(merkle.leaf_hash(data))
        assert frontier.root().hex() == expected


@pytest.mark.parametrize(
    ("index", "size", "proof"),
    [
        (0, 1, []),
        (
            0,
            8,
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            [
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    ],
)
def test_inclusion_proofs_of_the_reference_trees(index: int, size: int, proof: list[str]) -> None:
    tiles = merkle.MemoryTiles()
    tiles.update(merkle.Frontier().append(b"".join(merkle.leaf_hash(data) for data in INPUTS)))
    hashes = merkle.inclusion_proof(tiles, index, size)
    assert [item.hex() for item in hashes] == proof
    root = bytes.fromhex(ROOTS[size - 1])
    assert merkle.verify_inclusion(merkle.leaf_hash(INPUTS[index]), index, size, hashes, root)


@pytest.mark.parametrize(
    ("old_size", "new_size", "proof"),
    [
        (1, 1, []),
        (
            1,
            8,
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            [
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ],
)
def test_consistency_proofs_of_the_reference_trees(old_size: int, new_size: int, proof: list[str]) -> None:
    tiles = merkle.MemoryTiles()
    tiles.update(merkle.Frontier().append(b"".join(merkle.leaf_hash(data) for data in INPUTS)))
    hashes = merkle.consistency_proof(tiles, old_size, new_size)
    assert [item.hex() for item in hashes] == proof
    old_root, new_root = bytes.fromhex(ROOTS[old_size - 1]), bytes.fromhex(ROOTS[new_size - 1])
    assert merkle.verify_consistency(old_size, new_size, old_root, new_root, hashes)


def test_questions_without_an_answer_are_refused() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        with pytest.raises(ValueError, match="is not in a tree"):
            merkle.inclusion_proof(ALL, index, size)
        assert not merkle.verify_inclusion(LEAVES[0], index, size, [], LEAVES[0])
    for old_size, new_size in ((0, 5), (6, 5)):
        with pytest.raises(ValueError, match="cannot be proven"):
            merkle.consistency_proof(ALL, old_size, new_size)
    assert merkle.verify_consistency(0, 5, merkle.EMPTY_ROOT, LEAVES[0], [])
    assert not merkle.verify_consistency(0, 5, LEAVES[1], LEAVES[0], [])
    assert not merkle.verify_consistency(6, 5, LEAVES[0], LEAVES[0], [])
    assert not merkle.verify_consistency(4, 5, LEAVES[0], LEAVES[0], [])
