"""Signatures of packages: an in-toto statement about the manifest's sha256 in a DSSE envelope, signed with Ed25519.

Sources: in-toto Statement v1, DSSE 1.0 (https://github.com/secure-systems-lab/dsse). The time of signing is wall time
and lives here, outside what the digest covers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evenkeel.libs.keys import SigningKey, VerificationKey
from evenkeel.libs.packages.errors import SignatureInvalid, SignerUnknown

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:evenkeel:model-package:v1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Signature(_Part):
    keyid: str
    sig: str


class _Envelope(_Part):
    payload_type: Literal["application/vnd.in-toto+json"] = Field(alias="payloadType")
    payload: str
    signatures: tuple[_Signature, ...] = Field(min_length=1, max_length=8)


class _Subject(_Part):
    name: str
    digest: dict[str, str]


class _Statement(_Part):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[_Subject, ...]
    predicate_type: Literal["urn:evenkeel:model-package:v1"] = Field(alias="predicateType")


def sign_manifest(manifest_sha256: str, model: str, signed_at: str, key: SigningKey) -> bytes:
    """The envelope for a manifest with this sha256 (hex); `signed_at` is wall time, RFC 3339."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "manifest.json", "digest": {"sha256": manifest_sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"model": model, "signer": key.name, "signedAt": signed_at},
    }
    payload = orjson.dumps(statement, option=orjson.OPT_SORT_KEYS)
    signature = key.sign(_pre_authentication_encoding(payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.key_id, "sig": base64.b64encode(signature).decode()}],
    }
    return orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def verify_manifest(
    envelope_bytes: bytes, manifest_sha256: str, keys: Mapping[str, VerificationKey], signer: str
) -> None:
    """Check that `signer` signed a statement about this sha256. Raises `SignatureInvalid` or `SignerUnknown`."""
    try:
        envelope = _Envelope.model_validate_json(envelope_bytes)
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [(each.keyid, base64.b64decode(each.sig, validate=True)) for each in envelope.signatures]
    except (ValidationError, binascii.Error, ValueError) as error:
        raise SignatureInvalid("signature.json is not a DSSE envelope: train the model again") from error
    key = keys.get(signer)
    ours = [signature for key_id, signature in signatures if key is not None and key_id == key.key_id]
    if key is None or not ours:
        known = key.key_id if key else "no key"
        found = ", ".join(key_id for key_id, _ in signatures)
        raise SignerUnknown(
            f"the package is signed by key {found}, but {signer} has {known}: copy {signer}'s public key into the "
            "key folder"
        )
    if not key.verify(_pre_authentication_encoding(payload), ours[0]):
        raise SignatureInvalid(f"the signature of {signer} (key {key.key_id}) does not match: the package was altered")
    try:
        statement = _Statement.model_validate_json(payload)
    except ValidationError as error:
        raise SignatureInvalid("the signed statement is not one about a model package") from error
    if [subject.digest.get("sha256") for subject in statement.subject] != [manifest_sha256]:
        raise SignatureInvalid(f"the signature is about another manifest than sha256:{manifest_sha256}")


def _pre_authentication_encoding(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
