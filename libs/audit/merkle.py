"""The Merkle tree of RFC 9162 section 2.1, kept as tiles.

Like C2SP tlog-tiles, the tree is stored as tiles of up to 256 hashes: the tile (level, n) holds the hashes of the
complete subtrees of 256**level leaves from number 256 n on. So level 0 holds leaf hashes, and a tile's own root is one
hash of the level above. Everything between is recomputed when asked for, tiles only ever grow to the right, and so any
root or proof, for the present size or an earlier one, reads a handful of tiles however long the log is.

Proofs are the lists of 32-byte hashes of RFC 9162, sections 2.1.3 and 2.1.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, Protocol

HASH_BYTES: Final = 32
TILE_LEVELS: Final = 8
TILE_HASHES: Final = 1 << TILE_LEVELS
TILE_BYTES: Final = TILE_HASHES * HASH_BYTES
EMPTY_ROOT: Final = sha256(b"").digest()

TileName = tuple[int, int]
"""(level, number)"""


class Tiles(Protocol):
    """Where tiles are read from."""

    def tile(self, level: int, number: int) -> bytes:
        """The tile's hashes, one after another; KeyError if there is none."""


class MemoryTiles(dict[TileName, bytes]):
    """Tiles in a dictionary."""

    def tile(self, level: int, number: int) -> bytes:
        return self[level, number]


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf; its prefix keeps a leaf from passing for an inner node."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: per level the hashes of the tile that is not full yet.

    It is all that appending and the present root need: at most 255 hashes a level, whatever the size.
    """

    def __init__(self, size: int = 0, edge: Sequence[bytes] = ()) -> None:
        """`edge` holds the unfinished tile of every level, lowest first, as `load` reads them."""
        self.size = size
        self._edge = [bytearray(hashes) for hashes in edge]

    @classmethod
    def load(cls, tiles: Tiles, size: int) -> Frontier:
        """The right edge of the stored tree of `size` leaves, which may be a part of what is stored."""
        edge = []
        count, level = size, 0
        while count:
            number, hashes = divmod(count, TILE_HASHES)
            edge.append(tiles.tile(level, number)[: hashes * HASH_BYTES] if hashes else b"")
            count, level = number, level + 1
        return cls(size, edge)

    def copy(self) -> Frontier:
        return Frontier(self.size, [bytes(hashes) for hashes in self._edge])

    def append(self, leaf_hashes: bytes) -> dict[TileName, bytes]:
        """Append leaves, their hashes one after another, 32 bytes each.

        Returns the tiles that are new or have grown, whole, to be stored over their former state. How leaves are split
        into calls makes no difference to the tree.
        """
        changed: dict[TileName, bytes] = {}
        arriving = leaf_hashes
        first, level = self.size, 0
        while arriving:
            if level == len(self._edge):
                self._edge.append(bytearray())
            edge = self._edge[level]
            number = first // TILE_HASHES
            edge += arriving
            roots = []
            for start in range(0, len(edge), TILE_BYTES):
                tile = bytes(edge[start : start + TILE_BYTES])
                changed[level, number] = tile
                if len(tile) == TILE_BYTES:
                    roots.append(_subtree_root(tile))
                    number += 1
            del edge[: len(roots) * TILE_BYTES]
            arriving = b"".join(roots)
            first, level = first // TILE_HASHES, level + 1
        self.size += len(leaf_hashes) // HASH_BYTES
        return changed

    def root(self) -> bytes:
        """The tree's root hash."""
        root: bytes | None = None
        for edge in self._edge:
            for subtree in reversed(_perfect_subtrees(bytes(edge))):
                root = subtree if root is None else node_hash(subtree, root)
        return EMPTY_ROOT if root is None else root


def root(tiles: Tiles, size: int) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return Frontier.load(tiles, size).root()


def inclusion_proof(tiles: Tiles, index: int, size: int) -> list[bytes]:
    """The proof that leaf `index` is in the tree of the first `size` leaves (RFC 9162, 2.1.3.1).

    Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    proof = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _largest_power_below(high - low)
        if index < middle:
            proof.append(_range_root(tiles, middle, high))
            high = middle
        else:
            proof.append(_range_root(tiles, low, middle))
            low = middle
    return proof[::-1]


def consistency_proof(tiles: Tiles, old_size: int, new_size: int) -> list[bytes]:
    """The proof that the tree of `old_size` leaves is the beginning of that of `new_size` (RFC 9162, 2.1.4.1).

    Raises ValueError unless 0 < old_size <= new_size.
    """
    if not 0 < old_size <= new_size:
        raise ValueError(f"a tree of {old_size} leaves cannot be proven the beginning of one of {new_size}")
    proof = []
    low, high = 0, new_size
    while old_size != high:
        middle = low + _largest_power_below(high - low)
        if old_size <= middle:
            proof.append(_range_root(tiles, middle, high))
            high = middle
        else:
            proof.append(_range_root(tiles, low, middle))
            low = middle
    if low:
        proof.append(_range_root(tiles, low, high))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that the leaf with hash `leaf` is number `index` under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or any(len(sibling) != HASH_BYTES for sibling in proof):
        return False
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows the tree with `old_root` to be the beginning of that with `new_root` (RFC 9162, 2.1.4.2).

    An empty old tree is the beginning of every tree.
    """
    if not 0 <= old_size <= new_size or any(len(sibling) != HASH_BYTES for sibling in proof):
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    if old_size == new_size:
        return not proof and old_root == new_root
    hashes = list(proof)
    if old_size & (old_size - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _largest_power_below(count: int) -> int:
    """The largest power of two smaller than `count`, where RFC 9162 splits a tree of `count` > 1 leaves."""
    return 1 << (count - 1).bit_length() - 1


def _subtree_root(hashes: bytes) -> bytes:
    """The root over 1, 2, 4, … hashes."""
    while len(hashes) > HASH_BYTES:
        pairs = range(0, len(hashes), 2 * HASH_BYTES)
        hashes = b"".join([sha256(b"\x01" + hashes[start : start + 2 * HASH_BYTES]).digest() for start in pairs])
    return hashes


def _perfect_subtrees(hashes: bytes) -> list[bytes]:
    """The roots of the perfect subtrees that make up any number of hashes, largest first."""
    roots, start = [], 0
    for count in _powers(len(hashes) // HASH_BYTES):
        roots.append(_subtree_root(hashes[start : start + count * HASH_BYTES]))
        start += count * HASH_BYTES
    return roots


def _powers(count: int) -> Iterator[int]:
    for bit in reversed(range(count.bit_length())):
        if count >> bit & 1:
            yield 1 << bit


def _range_root(tiles: Tiles, low: int, high: int) -> bytes:
    """The root over the leaves low … high - 1 of a proof's step: `low` is aligned to the range's largest part."""
    result: bytes | None = None
    start, roots = low, []
    for count in _powers(high - low):
        roots.append(_node(tiles, count.bit_length() - 1, start))
        start += count
    for subtree in reversed(roots):
        result = subtree if result is None else node_hash(subtree, result)
    assert result is not None
    return result


def _node(tiles: Tiles, height: int, start: int) -> bytes:
    """The root of the perfect subtree of 2**height leaves from leaf `start` on."""
    level, within = divmod(height, TILE_LEVELS)
    number, position = divmod(start >> TILE_LEVELS * level, TILE_HASHES)
    tile = tiles.tile(level, number)
    return _subtree_root(tile[position * HASH_BYTES : (position + (1 << within)) * HASH_BYTES])
