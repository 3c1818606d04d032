"""The feature service's own settings."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evenkeel.libs.settings import OwnSettings


class FeatureSettings(OwnSettings):
    """`EVENKEEL_FEATURE_…`"""

    model_config = SettingsConfigDict(env_prefix="EVENKEEL_FEATURE_", frozen=True, extra="ignore")

    view_flush_ms: int = Field(250, ge=0, description="Wall time over which changes of the online view are conflated.")
    view_slots_per_second: int = Field(
        2_000, ge=1, description="Slots of the online view published per second at most."
    )
    snapshot_records: int = Field(20_000, ge=1, description="Folded records after which changed entities are stored.")
    snapshot_bytes: int = Field(16_777_216, ge=1, description="Journal size after which changed entities are stored.")
    dataset_commit_days: int = Field(1, ge=1, le=366, description="Event days in one commit of a training table.")
    compact_commits: int = Field(50, ge=2, description="Commits of a training table between two compactions.")
    table_days: int = Field(
        1_830,
        ge=1,
        description="Days of labels that a training table keeps at least, and days for which its former versions stay "
        "readable; what is older leaves with every compaction. No less than models ask for before they are trained.",
    )
