"""Settings of the trainer service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evenkeel.libs.settings import OwnSettings


class TrainerSettings(OwnSettings):
    """`EVENKEEL_TRAINER_…`."""

    model_config = SettingsConfigDict(env_prefix="EVENKEEL_TRAINER_", frozen=True, extra="ignore")

    threads: int = Field(1, ge=1, le=256, description="Processors that one training job may use.")
    time_budget_seconds: float = Field(600.0, gt=0, description="After this no further candidate is tried.")
    timeout_seconds: float = Field(3600.0, gt=0, description="After this a job is killed.")
    max_attempts: int = Field(3, ge=1, description="Tries of a job whose process died.")
    standby: bool = Field(True, description="Keep a process with its imports done waiting for the next job.")
    code_commit: str = Field("", description="Recorded in packages; without it, the checkout's commit or the release.")
