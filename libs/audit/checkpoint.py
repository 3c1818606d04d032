"""Checkpoints: signed promises about the log, in the text form of C2SP tlog-checkpoint and signed-note.

    evenkeel/governance/0f3c…
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    time 2013-12-31T23:59:00Z

    — evenkeel/governance/0f3c… Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+…

The first line is the log's origin, then its size, its root, and extension lines; all of it up to the empty line is
signed. Signatures of others (witnesses) may follow ours and are ignored here. Every tool that knows C2SP notes can
check one of ours, given `verifier_key`.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from evenkeel.libs.audit.merkle import HASH_BYTES
from evenkeel.libs.keys import SigningKey, VerificationKey

MAX_NOTE_BYTES: Final = 1 << 16
_ED25519: Final = b"\x01"
_NAME = re.compile(r"[^\s+\x00-\x1f]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class CheckpointError(ValueError):
    """Not a checkpoint, or not one that the given key signed."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one checkpoint says: the first `size` leaves of the log `origin` have this Merkle root."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The signed text. Raises CheckpointError if a part cannot stand in it."""
        if not _NAME.fullmatch(self.origin):
            raise CheckpointError(f"origin {self.origin!r} must be a name without spaces, control characters and '+'")
        if self.size < 0 or len(self.root) != HASH_BYTES:
            raise CheckpointError(f"size {self.size} must not be negative and the root must have {HASH_BYTES} bytes")
        if any(not line or _CONTROL.search(line) or "\n" in line for line in self.extensions):
            raise CheckpointError(f"extension lines {self.extensions!r} must be lines of text, none of them empty")
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """The checkpoint as a note signed under the log's origin as key name."""
    return sign_note(checkpoint.text, checkpoint.origin, key)


def read_checkpoint(note: bytes) -> Checkpoint:
    """What a checkpoint says, **not verified**: for display, and to learn the origin of one's own log."""
    return _parse(_split(note)[0])


def verify_checkpoint(note: bytes, key: VerificationKey, origin: str | None = None) -> Checkpoint:
    """What a checkpoint says, once its signature by `key` was checked. Raises CheckpointError.

    Without `origin` the key alone decides: any log that it signed for is accepted.
    """
    checkpoint = read_checkpoint(note)
    if origin is not None and checkpoint.origin != origin:
        raise CheckpointError(f"the checkpoint is of the log {checkpoint.origin!r}, not of {origin!r}")
    verify_note(note, checkpoint.origin, key)
    return checkpoint


def sign_note(text: str, name: str, key: SigningKey) -> bytes:
    """C2SP signed-note: `text`, which ends in a newline, an empty line, and one Ed25519 signature under `name`."""
    signature = key_hash(name, key.verification_key) + key.sign(text.encode())
    return f"{text}\n\u2014 {name} {base64.b64encode(signature).decode()}\n".encode()


def verify_note(note: bytes, name: str, key: VerificationKey) -> str:
    """The text of a note, once a signature on it by `key` under `name` was checked. Raises CheckpointError."""
    text, signatures = _split(note)
    expected = key_hash(name, key)
    for signer, signature in signatures:
        if signer == name and signature[:4] == expected:
            if not key.verify(text.encode(), signature[4:]):
                raise CheckpointError(f"the signature of {name} does not fit: the text was changed after it was signed")
            return text
    signers = ", ".join(sorted({signer for signer, _ in signatures}))
    raise CheckpointError(
        f"no signature of {name} by the key {key.key_id} (signed by: {signers}): give the public key of the service "
        "that wrote the log"
    )


def key_hash(name: str, key: VerificationKey) -> bytes:
    """The four bytes by which a signature names its key (C2SP signed-note, Ed25519)."""
    return sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes).digest()[:4]


def verifier_key(name: str, key: VerificationKey) -> str:
    """The public key as the one-line `<name>+<hash>+<key>` that note tools ask for."""
    return f"{name}+{key_hash(name, key).hex()}+{base64.b64encode(_ED25519 + key.public_bytes).decode()}"


def _split(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """The text of a note and its signatures, none of them verified."""
    if len(note) > MAX_NOTE_BYTES:
        raise CheckpointError(f"a note of {len(note)} bytes is longer than {MAX_NOTE_BYTES}")
    try:
        decoded = note.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError("not a signed note: it is not UTF-8") from error
    head, separator, tail = decoded.rpartition("\n\n")
    if not separator or not tail.endswith("\n") or _CONTROL.search(decoded):
        raise CheckpointError("not a signed note: expected text, an empty line, and signature lines")
    signatures = []
    for line in tail[:-1].split("\n"):
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        signature = _base64(encoded)
        if dash != "\u2014" or not _NAME.fullmatch(name) or len(signature) < 5:
            raise CheckpointError(f"{line!r} is not a signature line: expected '— <name> <base64>'")
        signatures.append((name, signature))
    return head + "\n", signatures


def _parse(text: str) -> Checkpoint:
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines) or not _NAME.fullmatch(lines[0]) or not _SIZE.fullmatch(lines[1]):
        raise CheckpointError("not a checkpoint: expected lines with origin, size and root")
    root = _base64(lines[2])
    if len(root) != HASH_BYTES:
        raise CheckpointError(f"not a checkpoint: the root {lines[2]!r} is not {HASH_BYTES} bytes in base64")
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:]))


def _base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckpointError(f"{text!r} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise CheckpointError(f"{text!r} is not canonical base64")
    return data
