"""Settings of the registry service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evenkeel.libs.settings import OwnSettings


class RegistrySettings(OwnSettings):
    """`EVENKEEL_REGISTRY_…`."""

    model_config = SettingsConfigDict(env_prefix="EVENKEEL_REGISTRY_", frozen=True, extra="ignore")

    approval_hours: float = Field(72.0, gt=0, description="Wall time that a request for approval stays open.")
