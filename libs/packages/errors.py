"""What can be wrong with a model package.

PackageError
├── PackageNotFound     no folder of that digest
├── DigestMismatch      a file's bytes are not what the manifest says, or the manifest is not what the digest says
├── FileSetMismatch     a file is missing, or one is there that the manifest does not list
├── SignatureInvalid    no signature, a broken one, or one over other bytes
├── SignerUnknown       signed by a key that is not in the key folder or not the signer's
├── ManifestInvalid     verified bytes that cannot be read as a manifest, golden rows, profile or coefficients
├── ExternalDataRefused the ONNX file refers to files outside the package
├── ModelUnloadable     the ONNX runtime cannot load it, or it has other inputs or outputs than the manifest says
└── GoldenMismatch      the model does not answer the golden rows as it did when it was made
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from evenkeel.libs.errors import EvenkeelError

Reason: TypeAlias = Literal["not_found", "digest", "signature", "load", "golden_rows"]


class PackageError(EvenkeelError):
    """Base; `reason` is the word that receipts use."""

    reason: ClassVar[Reason] = "load"


class PackageNotFound(PackageError):
    reason = "not_found"


class DigestMismatch(PackageError):
    reason = "digest"


class FileSetMismatch(PackageError):
    reason = "digest"


class SignatureInvalid(PackageError):
    reason = "signature"


class SignerUnknown(PackageError):
    reason = "signature"


class ManifestInvalid(PackageError):
    reason = "load"


class ExternalDataRefused(PackageError):
    reason = "load"


class ModelUnloadable(PackageError):
    reason = "load"


class GoldenMismatch(PackageError):
    reason = "golden_rows"
