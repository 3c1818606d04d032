"""Checkpoints: the form of C2SP, and nothing accepted that the key did not sign."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from evenkeel.libs.audit.checkpoint import (
    Checkpoint,
    CheckpointError,
    read_checkpoint,
    sign_checkpoint,
    sign_note,
    verifier_key,
    verify_checkpoint,
    verify_note,
)
from evenkeel.libs.keys import SigningKey, signing_key

CHECKPOINT = Checkpoint("evenkeel/governance/0f3c", 20852163, bytes(range(32)), ("time 2013-12-31T23:59:00Z",))


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path / "keys", "governance")


def test_signs_and_verifies(key: SigningKey) -> None:
    note = sign_checkpoint(CHECKPOINT, key)
    assert verify_checkpoint(note, key.verification_key) == CHECKPOINT
    assert verify_checkpoint(note, key.verification_key, CHECKPOINT.origin) == CHECKPOINT
    assert read_checkpoint(note) == CHECKPOINT
    assert note.decode().splitlines()[:4] == [
        "evenkeel/governance/0f3c",
        "20852163",
        base64.b64encode(bytes(range(32))).decode(),
        "time 2013-12-31T23:59:00Z",
    ]


def test_agrees_with_the_note_of_the_go_reference_implementation(tmp_path: Path) -> None:
    """The example of golang.org/x/mod/sumdb/note."""
    seed = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
    private = Ed25519PrivateKey.from_private_bytes(seed[1:])
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "neumann.key").write_bytes(pem)
    key = signing_key(tmp_path, "neumann")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    note = (
        f"{text}\n\u2014 PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert sign_note(text, "PeterNeumann", key).decode() == note
    assert verify_note(note.encode(), "PeterNeumann", key.verification_key) == text
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert verifier_key("PeterNeumann", key.verification_key) == vkey


def test_example_of_the_specification_parses() -> None:
    note = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "\u2014 example.com/behind-the-sofa "
        "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    )
    checkpoint = read_checkpoint(note.encode())
    assert (checkpoint.origin, checkpoint.size, checkpoint.extensions) == ("example.com/behind-the-sofa", 20852163, ())


def test_every_changed_byte_is_noticed(key: SigningKey) -> None:
    note = sign_checkpoint(CHECKPOINT, key)
    for position in range(len(note) - 1):
        changed = note[:position] + bytes([note[position] ^ 1]) + note[position + 1 :]
        with pytest.raises(CheckpointError):
            verify_checkpoint(changed, key.verification_key)


def test_other_keys_and_logs_are_refused(key: SigningKey, tmp_path: Path) -> None:
    note = sign_checkpoint(CHECKPOINT, key)
    with pytest.raises(CheckpointError, match="give the public key of the service"):
        verify_checkpoint(note, signing_key(tmp_path / "keys", "registry").verification_key)
    with pytest.raises(CheckpointError, match="not of 'evenkeel/other'"):
        verify_checkpoint(note, key.verification_key, "evenkeel/other")


def test_signatures_of_witnesses_may_stand_beside_ours(key: SigningKey, tmp_path: Path) -> None:
    witness = signing_key(tmp_path / "keys", "witness")
    ours = sign_checkpoint(CHECKPOINT, key).decode()
    theirs = sign_note(CHECKPOINT.text, "example.com/witness", witness).decode().rpartition("\n\n")[2]
    assert verify_checkpoint((ours + theirs).encode(), key.verification_key) == CHECKPOINT
    body = ours.rpartition("\n\n")[0]
    with pytest.raises(CheckpointError, match="no signature"):
        verify_checkpoint(f"{body}\n\n{theirs}".encode(), key.verification_key)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"text",
        b"\xff\xfe",
        b"a\n1\nAAAA\n\n",
        b"origin\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\xe2\x80\x94 n AAAAAAA=\n",
        b"origin\n1\nAAAA\n\n\xe2\x80\x94 n AAAAAAA=\n",
        b"or igin\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\xe2\x80\x94 n AAAAAAA=\n",
        b"x" * 100_000,
    ],
)
def test_what_is_no_checkpoint_is_refused(note: bytes) -> None:
    with pytest.raises(CheckpointError):
        read_checkpoint(note)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(CHECKPOINT, origin="two words"),
        replace(CHECKPOINT, origin="a+b"),
        replace(CHECKPOINT, size=-1),
        replace(CHECKPOINT, root=b"short"),
        replace(CHECKPOINT, extensions=("",)),
        replace(CHECKPOINT, extensions=("a\n1\n",)),
    ],
)
def test_what_cannot_stand_in_a_checkpoint_is_not_signed(wrong: Checkpoint, key: SigningKey) -> None:
    with pytest.raises(CheckpointError):
        sign_checkpoint(wrong, key)
