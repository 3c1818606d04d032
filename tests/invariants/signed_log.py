"""An auditor's own arithmetic: RFC 9162 Merkle trees and C2SP signed notes, written from those papers alone."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\0" + leaf).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes (section 2.1.1)."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = _split(len(leaves))
    return _node(root(leaves[:half]), root(leaves[half:]))


def root_by_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that a proof leads to from leaf `index` of `size`, None if it cannot be one (section 2.1.3)."""
    if size == 1:
        return leaf if not proof else None
    if not proof:
        return None
    half = _split(size)
    if index < half:
        left = root_by_inclusion(leaf, index, half, proof[:-1])
        return None if left is None else _node(left, proof[-1])
    right = root_by_inclusion(leaf, index - half, size - half, proof[:-1])
    return None if right is None else _node(proof[-1], right)


def roots_by_consistency(old: int, new: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """(old root, new root) that a proof leads to, None if it cannot be one (section 2.1.4)."""

    def walk(old: int, new: int, proof: Sequence[bytes], whole: bool) -> tuple[bytes, bytes] | None:
        if old == new:
            if whole:
                return (old_root, old_root) if not proof else None
            return (proof[0], proof[0]) if len(proof) == 1 else None
        if not proof:
            return None
        half, last = _split(new), proof[-1]
        if old <= half:
            left = walk(old, half, proof[:-1], whole)
            return None if left is None else (left[0], _node(left[1], last))
        right = walk(old - half, new - half, proof[:-1], False)
        return None if right is None else (_node(last, right[0]), _node(last, right[1]))

    return walk(old, new, proof, True)


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint: `root` over the first `size` leaves of the log `origin`. `fault` says what is wrong with the note."""

    origin: str
    size: int
    root: bytes
    fault: str | None


def read_note(text: str, public_key: Ed25519PublicKey) -> Note:
    """Read and check one note; a signature by another key, or none, is a fault."""
    try:
        head, tail = text.split("\n\n", 1)
        origin, size, encoded = head.split("\n")[:3]
        root_bytes = b64decode(encoded, validate=True)
        raw = public_key.public_bytes_raw()
        key_hash = sha256(f"{origin}\n".encode() + b"\1" + raw).digest()[:4]
        for line in tail.strip().split("\n"):
            _, signer, signature = line.split(" ")
            decoded = b64decode(signature, validate=True)
            if signer == origin and decoded[:4] == key_hash:
                public_key.verify(decoded[4:], f"{head}\n".encode())
                return Note(origin, int(size), root_bytes, None)
        return Note(origin, int(size), root_bytes, "governance's key has not signed it")
    except InvalidSignature:
        return Note(origin, int(size), root_bytes, "its signature does not fit")
    except ValueError as error:
        return Note("", 0, b"", f"it is no signed note ({error})")


def read_public_key(path: Path) -> Ed25519PublicKey:
    key = load_pem_public_key(path.read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    return key


def notes_in(path: Path) -> Iterator[str]:
    """The notes of an anchor file, one after another, each followed by an empty line."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    for head, signatures in zip(blocks[::2], blocks[1::2], strict=False):
        yield f"{head}\n\n{signatures}\n"


def shown(data: bytes) -> str:
    return b64encode(data).decode()
