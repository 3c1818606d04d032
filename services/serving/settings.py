"""Settings of serving: `EVENKEEL_SERVING_<NAME>`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evenkeel.contracts.payload import IDENTIFIER_PATTERN
from evenkeel.libs.settings import OwnSettings


class ServingSettings(OwnSettings):
    model_config = SettingsConfigDict(env_prefix="EVENKEEL_SERVING_", frozen=True, extra="ignore")

    replica: str | None = Field(
        None, pattern=IDENTIFIER_PATTERN, description="This replica's name in receipts; without it, host and port."
    )
    url: str | None = Field(None, description="Where clients reach this replica; without it, host and port.")
    store_bytes: int = Field(
        16 * 2**30, ge=2**20, description="Address space of the store, which its file can grow to: view and spool."
    )
    max_rows: int = Field(1_000, ge=1, le=100_000, description="Rows in one request at most.")
    retry_seconds: float = Field(
        10.0, gt=0, description="Wait before a champion that could not be loaded is tried again."
    )
