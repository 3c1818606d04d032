"""Which roles there are, and which of them a bearer token has."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Final, Literal

import structlog

log = structlog.get_logger(__name__)

Role = Literal["producer", "client", "scientist", "auditor", "approver", "operator"]
ROLES: Final[tuple[Role, ...]] = ("producer", "client", "scientist", "auditor", "approver", "operator")
_LIMIT_SECONDS: Final = 1.0


class Tokens:
    """Who may do what: a JSON file of {sha256 of the token: [roles]}, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._roles: dict[str, frozenset[str]] = {}
        self._known: dict[bytes, frozenset[str]] = {}
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
                self._roles = {digest: frozenset(roles) for digest, roles in loaded.items()}
                self._known, self._stamp = {}, stamp
        except FileNotFoundError:
            self._roles, self._known, self._stamp = {}, {}, None
        except (ValueError, AttributeError, OSError) as error:
            log.error("tokens file is not usable; the last good one stays in force", error=str(error))

    def roles_of(self, authorization: bytes) -> frozenset[str]:
        """The roles of an `Authorization` header's bearer token; none for an unknown one."""
        self._refresh()
        roles = self._known.get(authorization)
        if roles is None:
            scheme, _, token = authorization.partition(b" ")
            digest = hashlib.sha256(token.strip()).hexdigest()
            roles = self._roles.get(digest, frozenset()) if scheme.lower() == b"bearer" else frozenset()
            if roles:
                self._known[authorization] = roles
        return roles
