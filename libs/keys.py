"""The key folder: one Ed25519 key pair per service, made at first use.

`<service>.key` (PKCS #8 PEM, mode 600) signs, `<service>.pub` (SubjectPublicKeyInfo PEM) verifies. The private key
comes first on disk, so a lone `.pub` means a lost private key and is an error: a silent new pair would make
everything signed so far unverifiable.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from evenkeel.libs.errors import Stop

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class KeyFolderError(Stop):
    """A key cannot be read, made or trusted; the message names the file and the fix."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A service's public key."""

    name: str
    public_bytes: bytes
    """The 32 raw bytes of the Ed25519 public key (RFC 8032)."""

    @property
    def key_id(self) -> str:
        """The first 8 bytes of the SHA-256 of the raw public key, as 16 hex digits."""
        return hashlib.sha256(self.public_bytes).hexdigest()[:16]

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's Ed25519 signature over `data`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_bytes).verify(signature, data)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A service's private key; its repr shows no secret."""

    name: str
    verification_key: VerificationKey
    _private: Ed25519PrivateKey = field(repr=False)

    @property
    def key_id(self) -> str:
        return self.verification_key.key_id

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature over `data`."""
        return self._private.sign(data)


def signing_key(folder: Path, service: str) -> SigningKey:
    """The service's private key, made together with its public key if the folder has none yet.

    Two processes may ask at once: both get the same key. Raises `KeyFolderError`.
    """
    path = _path(folder, service, ".key")
    public_path = _path(folder, service, ".pub")
    try:
        was_published = public_path.exists()  # asked first: another process may make the pair between the two questions
        if not path.exists():
            if was_published:
                raise KeyFolderError(
                    f"{path} is missing but {public_path} exists: restore the private key from a backup, or remove the "
                    "public key to start a new pair (what the old one signed can then no longer be verified)"
                )
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _create_exclusively(path, _private_pem(Ed25519PrivateKey.generate()))
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyFolderError(f"{path} holds no Ed25519 key: replace it by an Ed25519 key in PKCS #8 PEM")
        public = VerificationKey(service, _raw(private.public_key()))
        if not public_path.exists():
            _create_exclusively(public_path, _public_pem(private.public_key()))
        if _read_public(public_path, service) != public:
            raise KeyFolderError(f"{public_path} does not belong to {path}: restore the pair that belongs together")
    except OSError as error:
        raise _unreadable(error, path) from error
    except ValueError as error:
        raise KeyFolderError(f"{path} is not an unencrypted private key in PEM: restore it from a backup") from error
    return SigningKey(service, public, private)


def verification_keys(folder: Path) -> dict[str, VerificationKey]:
    """Every public key of the folder by service name; empty if there is no folder yet. Raises `KeyFolderError`."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".pub") if folder.exists() else []
        return {path.stem: _read_public(path, path.stem) for path in paths}
    except OSError as error:
        raise _unreadable(error, folder) from error


def read_verification_key(path: Path) -> VerificationKey:
    """One public key file, e.g. a copy that an auditor keeps; the key's name is the file's stem."""
    try:
        return _read_public(path, path.stem)
    except OSError as error:
        raise _unreadable(error, path) from error


def _path(folder: Path, service: str, suffix: str) -> Path:
    if not _NAME.fullmatch(service):
        raise KeyFolderError(f"{service!r} is no service name: use letters, digits, '.', '_' and '-', at most 128")
    return folder / f"{service}{suffix}"


def _unreadable(error: OSError, path: Path) -> KeyFolderError:
    return KeyFolderError(
        f"{error.filename or path} cannot be read or written ({error.strerror}): check its owner and mode, the folder "
        "needs 700 and private keys 600 for the user that runs the services"
    )


def _create_exclusively(path: Path, content: bytes) -> None:
    """Publish a complete file under `path` unless one is there: link() is atomic and never replaces, so a reader sees
    no half-written key and of two processes at once the first wins."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644 if path.suffix == ".pub" else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink()


def _read_public(path: Path, service: str) -> VerificationKey:
    try:
        public = serialization.load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise KeyFolderError(f"{path} is not a public key in PEM: restore it from a backup") from error
    if not isinstance(public, Ed25519PublicKey):
        raise KeyFolderError(f"{path} holds no Ed25519 key: replace it by the service's Ed25519 public key in PEM")
    return VerificationKey(service, _raw(public))


def _raw(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _public_pem(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_pem(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
