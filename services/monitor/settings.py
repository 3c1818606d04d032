"""The monitor service's own settings: none yet, policies are declared per model."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from evenkeel.libs.settings import OwnSettings


class MonitorSettings(OwnSettings):
    """`EVENKEEL_MONITOR_…`"""

    model_config = SettingsConfigDict(env_prefix="EVENKEEL_MONITOR_", frozen=True, extra="ignore")
