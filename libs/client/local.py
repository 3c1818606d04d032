"""Where the system of a data folder listens, and the token that it was started with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from evenkeel.libs.client.errors import ServiceError
from evenkeel.libs.process.supervised import running_supervisor


def addresses_of(data_dir: Path) -> Mapping[str, str]:
    """Service → address, of the `evenkeel up` that runs on this folder; empty if none does."""
    urls = (running_supervisor(data_dir) or {}).get("urls")
    return {str(name): str(url) for name, url in urls.items()} if isinstance(urls, dict) else {}


def token_given() -> str | None:
    """The environment's `EVENKEEL_TOKEN`."""
    return os.environ.get("EVENKEEL_TOKEN") or None


def token_of(data_dir: Path) -> str:
    """The environment's, or the one that `evenkeel up` made at its first start on this folder; raises ServiceError if there
    is none."""
    given = token_given()
    if given is not None:
        return given
    path = data_dir / "keys" / "token"
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ServiceError(
            f"there is no token: set EVENKEEL_TOKEN, or name the data folder (looked in {path}: {error.strerror})"
        ) from None
