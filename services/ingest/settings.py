"""Settings of ingest: `EVENKEEL_INGEST_<NAME>`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evenkeel.libs.settings import OwnSettings


class IngestSettings(OwnSettings):
    model_config = SettingsConfigDict(env_prefix="EVENKEEL_INGEST_", frozen=True, extra="ignore")

    raw_partitions: int = Field(2, ge=1, le=1000, description="Partitions of a raw topic that does not exist yet.")
    id_horizon_seconds: int = Field(86_400, ge=1, description="How long an id is remembered, in event time.")
    max_ids_per_stream: int = Field(1_000_000, ge=1_000, description="Ids remembered at most, the newest of them.")
    acknowledge_seconds: float = Field(5.0, gt=0, le=60, description="How long an HTTP caller waits for the broker.")
    max_waiting_requests: int = Field(256, ge=1, description="HTTP callers that wait for the broker at once.")
