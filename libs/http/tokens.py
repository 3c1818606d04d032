"""Whose a bearer token is, and which roles it has."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from evenkeel.contracts.http.route import Role
from evenkeel.libs.errors import Refused

log = structlog.get_logger(__name__)

_LIMIT_SECONDS: Final = 1.0
_SHOWN_DIGITS: Final = 12


class Holder(NamedTuple):
    """Whoever has a token."""

    name: str
    """As the tokens file calls him; of an entry without a name, `sha256:` and the first digits of its digest."""
    roles: frozenset[str]


class Tokens:
    """The tokens file: a JSON object of {sha256 of the token: {"name": …, "roles": […]}}, read again when it changes.

    A list of roles may stand for an entry without a name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holders: dict[str, Holder] = {}
        self._known: dict[bytes, Holder] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = 0.0

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LIMIT_SECONDS:
            return
        self._looked = now
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                loaded = json.loads(self._path.read_text())
                self._holders = {digest: _holder(digest, entry) for digest, entry in loaded.items()}
                self._known, self._stamp = {}, stamp
        except FileNotFoundError:
            self._holders, self._known, self._stamp = {}, {}, None
        except (ValueError, AttributeError, TypeError, KeyError, OSError) as error:
            log.error("tokens file is not usable; the last good one stays in force", error=str(error))

    def holder_of(self, authorization: bytes) -> Holder | None:
        """Who has the bearer token of an `Authorization` header; None for an unknown one."""
        self._refresh()
        holder = self._known.get(authorization)
        if holder is None:
            scheme, _, token = authorization.partition(b" ")
            digest = hashlib.sha256(token.strip()).hexdigest()
            holder = self._holders.get(digest) if scheme.lower() == b"bearer" else None
            if holder is not None:
                self._known[authorization] = holder
        return holder

    def require(self, authorization: bytes, role: Role) -> Holder:
        """The same; raises Refused: 401 without a known token, 403 if it has other roles."""
        holder = self.holder_of(authorization)
        if holder is None or not holder.roles:
            raise Refused(
                401,
                "Unauthorized",
                "This call needs a known bearer token.",
                field="Authorization",
                fix="Send `Authorization: Bearer <token>`.",
            )
        if role not in holder.roles:
            raise Refused(
                403,
                "Forbidden",
                f"This call needs the role {role}.",
                field="Authorization",
                fix="Use a token that has it.",
            )
        return holder


def _holder(digest: str, entry: Any) -> Holder:
    nameless = f"sha256:{digest[:_SHOWN_DIGITS]}"
    if isinstance(entry, list):
        return Holder(nameless, frozenset(entry))
    return Holder(str(entry.get("name") or nameless), frozenset(entry["roles"]))
