"""The key folder: made once, the same for everybody, and clear about what is wrong with it."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from evenkeel.libs.keys import KeyFolderError, signing_key, verification_keys


def test_key_is_made_once_with_mode_600_and_its_signature_verifies(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    key = signing_key(folder, "trainer")
    again = signing_key(folder, "trainer")
    assert key.key_id == again.key_id and len(key.key_id) == 16
    assert key.sign(b"x") == again.sign(b"x")
    assert stat.S_IMODE((folder / "trainer.key").stat().st_mode) == 0o600
    public = verification_keys(folder)["trainer"]
    assert public == key.verification_key
    assert public.verify(b"x", key.sign(b"x"))
    assert not public.verify(b"y", key.sign(b"x"))
    assert not public.verify(b"x", b"short")
    assert sorted(path.name for path in folder.iterdir()) == ["trainer.key", "trainer.pub"]


def test_services_have_different_keys(tmp_path: Path) -> None:
    signing_key(tmp_path, "trainer"), signing_key(tmp_path, "governance")
    keys = verification_keys(tmp_path)
    assert sorted(keys) == ["governance", "trainer"]
    assert keys["governance"].key_id != keys["trainer"].key_id


def test_processes_starting_at_once_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from evenkeel.libs.keys import signing_key; sys.stdin.read(1);"
        "print(signing_key(Path(sys.argv[1]), 'ingest').key_id)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "keys")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("x")
        child.stdin.flush()
    ids = {child.communicate(timeout=60)[0].strip() for child in children}
    assert len(ids) == 1 and "" not in ids


def test_secret_does_not_show_in_repr(tmp_path: Path) -> None:
    assert "Private" not in repr(signing_key(tmp_path, "trainer"))


def test_lost_private_key_is_an_error_and_not_a_new_pair(tmp_path: Path) -> None:
    signing_key(tmp_path, "trainer")
    (tmp_path / "trainer.key").unlink()
    with pytest.raises(KeyFolderError, match="restore the private key"):
        signing_key(tmp_path, "trainer")


def test_pair_that_does_not_belong_together_is_an_error(tmp_path: Path) -> None:
    signing_key(tmp_path, "trainer"), signing_key(tmp_path, "registry")
    (tmp_path / "trainer.pub").write_bytes((tmp_path / "registry.pub").read_bytes())
    with pytest.raises(KeyFolderError, match="does not belong"):
        signing_key(tmp_path, "trainer")


@pytest.mark.parametrize("name", ["trainer.key", "trainer.pub"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    signing_key(tmp_path, "trainer")
    (tmp_path / name).write_bytes(b"\x00 not a key")
    with pytest.raises(KeyFolderError, match=name):
        signing_key(tmp_path, "trainer")


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "trainer.key").mkdir()
    with pytest.raises(KeyFolderError, match=r"trainer\.key cannot be read"):
        signing_key(tmp_path, "trainer")


def test_key_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1())
    (tmp_path / "trainer.key").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyFolderError, match="no Ed25519 key"):
        signing_key(tmp_path, "trainer")


@pytest.mark.parametrize("name", ["", "../trainer", "a/b", ".hidden", "x" * 129])
def test_name_that_is_no_identifier_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFolderError, match="is no service name"):
        signing_key(tmp_path, name)


def test_missing_folder_has_no_keys(tmp_path: Path) -> None:
    assert verification_keys(tmp_path / "none") == {}
