"""A package is what was signed, byte for byte, or it is not loaded."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evenkeel.libs.keys import signing_key, verification_keys
from evenkeel.libs.packages import errors
from evenkeel.libs.packages.manifest import GoldenRows, canonical_json
from evenkeel.libs.packages.package import Package, read_package, write_package
from evenkeel.libs.packages.signature import sign_manifest, verify_manifest
from tests.tiny_packages import tiny_package, tiny_training

SIGNED_AT = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `keys`, `artifacts` and one package of a linear model, which has every kind of file."""
    home = tmp_path_factory.mktemp("original")
    tiny_package(home / "artifacts", home / "keys")
    return home


@pytest.fixture
def home(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "home"))


def _folder(home: Path) -> Path:
    (folder,) = (home / "artifacts" / "sha256").iterdir()
    return folder


def _read(home: Path) -> Package:
    return read_package(home / "artifacts", f"sha256:{_folder(home).name}", verification_keys(home / "keys"))


def test_what_was_written_is_read(home: Path) -> None:
    contents = tiny_training().contents
    package = _read(home)
    assert package.digest == "sha256:" + hashlib.sha256((_folder(home) / "manifest.json").read_bytes()).hexdigest()
    assert package.manifest.model_dump(exclude={"files"}) == contents.manifest.model_dump()
    assert (package.model_onnx, package.golden, package.profile) == (
        contents.model_onnx,
        contents.golden,
        contents.profile,
    )
    assert (package.linear, package.metrics) == (contents.linear, contents.metrics)
    assert package.size_bytes == sum(
        path.stat().st_size for path in _folder(home).iterdir() if path.stem != "signature"
    )
    assert package.profile_digest == "sha256:" + hashlib.sha256(package.files["profile.json"]).hexdigest()


def test_writing_again_changes_nothing_not_even_the_time_of_signing(home: Path) -> None:
    before = {path.name: path.read_bytes() for path in _folder(home).iterdir()}
    key = signing_key(home / "keys", "trainer")
    ref = write_package(home / "artifacts", tiny_training().contents, key, signed_at="2027-01-01T00:00:00Z")
    assert ref.digest == f"sha256:{_folder(home).name}"
    assert ref.uri == f"artifacts/sha256/{_folder(home).name}"
    assert {path.name: path.read_bytes() for path in _folder(home).iterdir()} == before


def test_writing_over_altered_files_is_refused(home: Path) -> None:
    (_folder(home) / "golden.json").write_bytes(b"{}")
    with pytest.raises(errors.DigestMismatch, match="remove the folder"):
        write_package(
            home / "artifacts", tiny_training().contents, signing_key(home / "keys", "trainer"), signed_at=SIGNED_AT
        )


@pytest.mark.parametrize(
    "name", ["manifest.json", "model.onnx", "golden.json", "profile.json", "metrics.json", "linear.json"]
)
@pytest.mark.parametrize("change", ["first", "middle", "last", "longer", "shorter"])
def test_one_changed_byte_in_any_file_is_noticed(home: Path, name: str, change: str) -> None:
    path = _folder(home) / name
    content = bytearray(path.read_bytes())
    if change == "longer":
        content += b"\n"
    elif change == "shorter":
        del content[-1]
    else:
        content[{"first": 0, "middle": len(content) // 2, "last": -1}[change]] ^= 1
    path.write_bytes(content)
    with pytest.raises(errors.DigestMismatch, match=name) as caught:
        _read(home)
    assert caught.value.reason == "digest"


def test_every_byte_of_the_signature_counts(home: Path) -> None:
    """A changed byte is refused, or (white space, an ignored key) changes nothing about what was signed."""
    path = _folder(home) / "signature.json"
    content = path.read_bytes()
    envelope = json.loads(content)
    refused = 0
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        try:
            _read(home)
        except (errors.SignatureInvalid, errors.SignerUnknown):
            refused += 1
        else:
            changed = json.loads(path.read_bytes())
            assert base64.b64decode(changed["payload"]) == base64.b64decode(envelope["payload"])
    assert refused > 0.9 * len(content)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("model.onnx", errors.FileSetMismatch),
        ("manifest.json", errors.FileSetMismatch),
        ("signature.json", errors.SignatureInvalid),
    ],
)
def test_a_missing_file_is_named(home: Path, name: str, error: type[errors.PackageError]) -> None:
    (_folder(home) / name).unlink()
    with pytest.raises(error, match=name):
        _read(home)


def test_a_file_that_is_not_listed_is_refused(home: Path) -> None:
    (_folder(home) / "weights.bin").write_bytes(b"x")
    with pytest.raises(errors.FileSetMismatch, match=r"weights\.bin"):
        _read(home)


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:" + "0" * 64,
        "../../keys",
        "sha256:../" + "0" * 61,
        "md5:00",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 64 + "\n",
    ],
)
def test_only_digests_of_packages_that_exist_are_found(home: Path, digest: str) -> None:
    with pytest.raises(errors.PackageNotFound):
        read_package(home / "artifacts", digest, verification_keys(home / "keys"))


def test_signer_must_be_the_trainer_known_here(home: Path) -> None:
    digest = f"sha256:{_folder(home).name}"
    with pytest.raises(errors.SignerUnknown, match="no key"):
        read_package(home / "artifacts", digest, {})
    signing_key(home / "other", "trainer")
    with pytest.raises(errors.SignerUnknown, match="copy trainer's public key"):
        read_package(home / "artifacts", digest, verification_keys(home / "other"))
    with pytest.raises(errors.SignerUnknown):
        read_package(home / "artifacts", digest, verification_keys(home / "keys"), signer="serving")


def test_signature_of_another_package_does_not_fit(home: Path) -> None:
    key = signing_key(home / "keys", "trainer")
    (_folder(home) / "signature.json").write_bytes(sign_manifest("0" * 64, "late", SIGNED_AT, key))
    with pytest.raises(errors.SignatureInvalid, match="another manifest"):
        _read(home)


def test_signed_bytes_follow_the_dsse_specification(home: Path) -> None:
    envelope = json.loads((_folder(home) / "signature.json").read_bytes())
    payload = base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    key = verification_keys(home / "keys")["trainer"]
    assert key.verify(signed, base64.b64decode(envelope["signatures"][0]["sig"]))
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "manifest.json", "digest": {"sha256": _folder(home).name}}]


def _other_payload_type(envelope: dict[str, object]) -> None:
    envelope["payloadType"] = "text/plain"


def _no_signatures(envelope: dict[str, object]) -> None:
    envelope["signatures"] = []


@pytest.mark.parametrize("change", [_other_payload_type, _no_signatures])
def test_other_envelopes_are_refused(home: Path, change: Callable[[dict[str, object]], None]) -> None:
    path = _folder(home) / "signature.json"
    envelope = json.loads(path.read_bytes())
    change(envelope)
    with pytest.raises(errors.SignatureInvalid, match="not a DSSE envelope"):
        verify_manifest(json.dumps(envelope).encode(), _folder(home).name, verification_keys(home / "keys"), "trainer")


def _resigned(home: Path, name: str, content: bytes) -> None:
    """What a careless or hostile trainer could sign: consistent hashes over one exchanged file."""
    folder = _folder(home)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / name).write_bytes(content)
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    _resign(home, canonical_json(manifest))


def _resign(home: Path, manifest_bytes: bytes) -> None:
    folder = _folder(home)
    (folder / "manifest.json").write_bytes(manifest_bytes)
    hexadecimal = hashlib.sha256(manifest_bytes).hexdigest()
    key = signing_key(home / "keys", "trainer")
    (folder / "signature.json").write_bytes(sign_manifest(hexadecimal, "late", SIGNED_AT, key))
    folder.rename(folder.with_name(hexadecimal))


def test_signed_nonsense_is_an_invalid_manifest(home: Path) -> None:
    _resign(home, b'{"format": "something else"}')
    with pytest.raises(errors.ManifestInvalid, match="another version"):
        _read(home)


def test_a_manifest_cannot_name_files_elsewhere(home: Path) -> None:
    manifest = json.loads((_folder(home) / "manifest.json").read_bytes())
    manifest["files"]["../../../keys/trainer.key"] = manifest["files"]["model.onnx"]
    _resign(home, canonical_json(manifest))
    with pytest.raises(errors.ManifestInvalid):
        _read(home)


def test_golden_rows_and_evidence_are_checked_when_they_are_used(home: Path) -> None:
    _resigned(home, "golden.json", b'{"tolerance": 1e-5, "rows": [[1.0]], "expected": []}')
    with pytest.raises(errors.ManifestInvalid, match=r"golden\.json"):
        _ = _read(home).golden
    _resigned(home, "metrics.json", b"[")
    with pytest.raises(errors.ManifestInvalid, match=r"metrics\.json"):
        _ = _read(home).metrics


def test_infinite_numbers_are_never_written(home: Path) -> None:
    contents = replace(tiny_training().contents, metrics={"auc": [float("nan")]})
    with pytest.raises(ValueError, match=r"\$\.auc\[0\] is nan"):
        write_package(home / "artifacts", contents, signing_key(home / "keys", "trainer"), signed_at=SIGNED_AT)
    with pytest.raises(ValueError, match="finite"):
        GoldenRows(tolerance=1e-5, rows=((1.0,),), expected=(float("inf"),))


def test_a_writer_that_dies_leaves_no_package(tmp_path: Path) -> None:
    """The disk fills up half way: here, a file where the folder of drafts must be."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "sha256").write_bytes(b"")
    with pytest.raises(OSError, match="sha256"):
        tiny_package(tmp_path / "artifacts", tmp_path / "keys")
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["sha256"]
