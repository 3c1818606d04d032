"""Settings of the governance service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evenkeel.libs.settings import OwnSettings


class GovernanceSettings(OwnSettings):
    """`EVENKEEL_GOVERNANCE_…`."""

    model_config = SettingsConfigDict(env_prefix="EVENKEEL_GOVERNANCE_", frozen=True, extra="ignore")

    checkpoint_seconds: float = Field(5.0, ge=0, description="Wall time between two checkpoints of a growing log.")
