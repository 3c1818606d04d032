"""Writing and reading model packages: `<root>/sha256/<hex of manifest.json>/` with manifest.json, model.onnx,
golden.json, profile.json, metrics.json, linear.json for linear models, and signature.json."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from evenkeel.libs.keys import SigningKey, VerificationKey
from evenkeel.libs.packages.errors import (
    DigestMismatch,
    ExternalDataRefused,
    FileSetMismatch,
    ManifestInvalid,
    PackageNotFound,
    SignatureInvalid,
)
from evenkeel.libs.packages.manifest import (
    DIGEST_PATTERN,
    FileRecord,
    GoldenRows,
    LinearCoefficients,
    Manifest,
    ManifestCore,
    canonical_json,
)
from evenkeel.libs.packages.signature import sign_manifest, verify_manifest
from evenkeel.libs.sketches.profile import Profile

MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"
GOLDEN: Final = "golden.json"
PROFILE: Final = "profile.json"
METRICS: Final = "metrics.json"
LINEAR: Final = "linear.json"
SIGNATURE: Final = "signature.json"

MAX_MANIFEST_BYTES: Final = 4 * 2**20
MAX_PACKAGE_BYTES: Final = 2**30

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class PackageContents:
    """Everything that goes into a package before it is written."""

    manifest: ManifestCore
    model_onnx: bytes
    golden: GoldenRows
    profile: Profile
    metrics: dict[str, Any]
    linear: LinearCoefficients | None = None


@dataclass(frozen=True, slots=True)
class PackageRef:
    """Where a package is: `uri` is relative to the data folder, `size_bytes` counts every file but the signature."""

    digest: str
    uri: str
    size_bytes: int


@dataclass(frozen=True)
class Package:
    """A verified package: the bytes here are the bytes that were hashed, so whatever is loaded from them is, too."""

    digest: str
    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def model_onnx(self) -> bytes:
        return self.files[MODEL]

    @property
    def size_bytes(self) -> int:
        return sum(len(content) for content in self.files.values())

    @cached_property
    def golden(self) -> GoldenRows:
        return _parsed(GoldenRows, GOLDEN, self.files[GOLDEN])

    @cached_property
    def profile(self) -> Profile:
        return _parsed(Profile, PROFILE, self.files[PROFILE])

    @property
    def profile_digest(self) -> str:
        """Names the reference that drift is measured against."""
        return f"sha256:{self.manifest.files[PROFILE].sha256}"

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The evidence."""
        try:
            return dict(orjson.loads(self.files[METRICS]))
        except (orjson.JSONDecodeError, TypeError, ValueError) as error:
            raise ManifestInvalid(f"{METRICS} of {self.digest} is not a JSON object") from error

    @cached_property
    def linear(self) -> LinearCoefficients | None:
        return _parsed(LinearCoefficients, LINEAR, self.files[LINEAR]) if self.manifest.linear else None


def write_package(root: Path, contents: PackageContents, key: SigningKey, *, signed_at: str) -> PackageRef:
    """Write a package under `root` and sign it; the folder appears whole or not at all, and writing it again is no
    change. `signed_at` is wall time, RFC 3339, and not part of the digest.

    Raises `ExternalDataRefused`, `DigestMismatch` when the folder exists with other bytes, and `OSError`.
    """
    refuse_external_data(contents.model_onnx)
    files = {
        MODEL: contents.model_onnx,
        GOLDEN: canonical_json(contents.golden),
        PROFILE: canonical_json(contents.profile),
        METRICS: canonical_json(contents.metrics),
    }
    if contents.linear is not None:
        files[LINEAR] = canonical_json(contents.linear)
    records = {name: FileRecord(sha256=_sha256(content), size_bytes=len(content)) for name, content in files.items()}
    manifest = Manifest(**contents.manifest.model_dump(), files=records)
    files[MANIFEST] = manifest.to_bytes()
    hexadecimal = _sha256(files[MANIFEST])
    ref = PackageRef(f"sha256:{hexadecimal}", f"artifacts/sha256/{hexadecimal}", sum(map(len, files.values())))
    folder = root / "sha256" / hexadecimal
    if not folder.exists():
        files[SIGNATURE] = sign_manifest(hexadecimal, manifest.model, signed_at, key)
        _publish(folder, files)
        del files[SIGNATURE]
    for name, content in files.items():
        if _read(folder / name, len(content)) != content:
            raise DigestMismatch(f"{folder / name} was altered: remove the folder {folder} and train again")
    return ref


def read_package(root: Path, digest: str, keys: Mapping[str, VerificationKey], *, signer: str = "trainer") -> Package:
    """Read the package `sha256:<hex>` under `root`, each file once, and verify digest, signature and every file's
    sha256 before anything is parsed beyond the manifest. `keys` are public keys by service name.

    Raises a `PackageError` named by what is wrong; `OSError` passes through (the disk may come back).
    """
    if not re.fullmatch(DIGEST_PATTERN, digest):
        raise PackageNotFound(f"{digest!r} is not a package digest: it must be sha256: and 64 hexadecimal digits")
    hexadecimal = digest.removeprefix("sha256:")
    folder = root / "sha256" / hexadecimal
    if not folder.is_dir():
        raise PackageNotFound(f"there is no package {digest} among the artifacts: copy it there, or train again")
    present = {path.name for path in folder.iterdir()}
    manifest_bytes = _required(folder, MANIFEST, MAX_MANIFEST_BYTES)
    if _sha256(manifest_bytes) != hexadecimal:
        raise DigestMismatch(f"{MANIFEST} of {digest} was altered: its sha256 is {_sha256(manifest_bytes)}")
    if SIGNATURE not in present:
        raise SignatureInvalid(f"{digest} has no {SIGNATURE}: only signed packages are loaded")
    verify_manifest(_required(folder, SIGNATURE, MAX_MANIFEST_BYTES), hexadecimal, keys, signer)
    manifest = _parsed(Manifest, MANIFEST, manifest_bytes)
    expected = {MODEL, GOLDEN, PROFILE, METRICS} | ({LINEAR} if manifest.linear else set())
    if set(manifest.files) != expected:
        raise ManifestInvalid(f"{digest} lists {sorted(manifest.files)} where {sorted(expected)} belong")
    surplus = present - expected - {MANIFEST, SIGNATURE}
    if surplus:
        raise FileSetMismatch(f"{digest} holds {sorted(surplus)}, which its manifest does not list")
    if sum(record.size_bytes for record in manifest.files.values()) > MAX_PACKAGE_BYTES:
        raise ManifestInvalid(f"{digest} is larger than {MAX_PACKAGE_BYTES} bytes")
    files = {MANIFEST: manifest_bytes}
    for name, record in manifest.files.items():
        content = _required(folder, name, record.size_bytes)
        if len(content) != record.size_bytes or _sha256(content) != record.sha256:
            raise DigestMismatch(
                f"{name} of {digest} was altered: it is not the {record.size_bytes} bytes that were signed"
            )
        files[name] = content
    refuse_external_data(files[MODEL])
    return Package(digest, manifest, files)


def refuse_external_data(model_onnx: bytes) -> None:
    """Refuse an ONNX file that could make the runtime open other files.

    An external tensor must name its file under the key `location` (onnx.proto, TensorProto.external_data), so bytes
    without that word have none; our own graphs hold no free text that could contain it.
    """
    if b"location" in model_onnx:
        raise ExternalDataRefused(f"{MODEL} refers to data outside the package: save it with its weights inside")


def _parsed(model: type[_Model], name: str, content: bytes) -> _Model:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise ManifestInvalid(f"{name}: {field}: {first['msg']}: the package comes from another version") from error


def _required(folder: Path, name: str, max_bytes: int) -> bytes:
    try:
        return _read(folder / name, max_bytes)
    except FileNotFoundError as error:
        raise FileSetMismatch(
            f"{name} is missing from {folder.name}: copy the package again, or train again"
        ) from error


def _read(path: Path, max_bytes: int) -> bytes:
    """At most one byte more than allowed, so that a wrong size shows and a huge file does not fill the memory."""
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _publish(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".draft-{secrets.token_hex(8)}"
    draft.mkdir()
    try:
        for name, content in files.items():
            with (draft / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(draft)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            return  # another writer of the same bytes was first
        _sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
