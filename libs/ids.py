"""Identifiers: given ones are kept, derived ones follow from their cause, so that a repeat gets the same id."""

from __future__ import annotations

import hashlib
import os
import uuid
from typing import Final

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:evenkeel:event").bytes
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def derived_id(service: str, cause_id: str, type_name: str, index: int) -> str:
    """uuid5 of what an event follows from; the same cause gives the same id for ever.

    Written out because uuid.uuid5 costs three times as much on the data plane.

    >>> derived_id("feature", "a", "t", 0) == str(uuid.uuid5(uuid.UUID(bytes=_NAMESPACE), "feature|a|t|0"))
    True
    """
    name = _NAMESPACE + f"{service}|{cause_id}|{type_name}|{index}".encode()
    text = hashlib.sha1(name, usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def vector_id(accepted_id: str, model: str) -> str:
    """The id of a model's vector of an accepted event: by the model's name, whichever other models there are."""
    return derived_id("feature", f"{accepted_id}|{model}", "vector-computed", 0)


def random_id() -> str:
    """uuid4; written out for the same reason.

    >>> uuid.UUID(random_id()).version
    4
    """
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"
