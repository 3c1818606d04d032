"""How commands reach a running system: its address and token from the data folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from evenkeel.libs.client.clients import Client

TIMEOUT_SECONDS: Final = 60.0


def client_of(data_dir: Path, urls: Mapping[str, str | None] | None = None) -> Client:
    """A client of the system that runs on this folder; `urls` are addresses that were given by hand."""
    given = {service: url for service, url in (urls or {}).items() if url is not None}
    return Client.of_folder(data_dir, urls=given, timeout_seconds=TIMEOUT_SECONDS)
