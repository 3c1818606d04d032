"""What registry publishes."""

from __future__ import annotations

from typing import Literal

from contracts.declaration import ModelSpec, StreamSpec
from contracts.payload import Count, Digest, Finite, Identifier, Payload


class StreamDeclared(Payload):
    """A stream's contract. Consumers name it by its offset in this topic."""

    name: Identifier
    spec: StreamSpec


class ModelDeclared(Payload):
    """A model's declaration, with the streams it needs as they stood then, so that it can be read alone."""

    name: Identifier
    spec: ModelSpec
    streams: dict[Identifier, StreamSpec]
    view_version: str


class VersionRegistered(Payload):
    model: Identifier
    version: Count
    package: Digest
    package_uri: str
    package_bytes: Count
    view_version: str
    run_id: str
    dataset_version: Count
    estimator: str
    threshold: Finite | None = None


class GateDecided(Payload):
    """One gate's verdict on one version, with the value it looked at and the bar it held it to."""

    model: Identifier
    version: Count
    package: Digest
    run_id: str
    gate: Literal["better_than_champion", "golden_rows", "package_size", "view_version", "cooldown"]
    of: Count
    """How many gates were decided on this run together: fewer than that is not the whole decision."""
    passed: bool
    value: Finite | None = None
    bar: Finite | None = None
    detail: str


class ApprovalDecided(Payload):
    model: Identifier
    version: Count
    package: Digest
    epoch: Count
    """The champion's epoch that the approval was given against."""
    nonce: str
    approved: bool
    approver: str
    comment: str = ""


class RollbackTarget(Payload):
    version: Count
    package: Digest
    package_uri: str
    threshold: Finite | None = None


class ChampionChanged(Payload):
    """From this epoch on, this version answers. The highest epoch wins."""

    model: Identifier
    epoch: Count
    version: Count
    package: Digest
    package_uri: str
    view_version: str
    threshold: Finite | None = None
    cause: Literal["promotion", "approval", "rollback", "command"]
    cause_id: str
    run_id: str | None = None
    previous_version: Count | None = None
    rollback_target: RollbackTarget | None = None
    quarantined: Count | None = None
    """The version that a rollback took out of service until it is approved anew."""
    reason: str = ""
