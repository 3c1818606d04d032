"""What registry publishes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.payload import Caller, Count, Digest, Finite, Identifier, Payload, Time, Word

Declared: TypeAlias = Annotated[
    dict[str, Any], Field(description="As declared, by contracts/schemas/declaration.json of the release that took it.")
]
"""A part of a declaration as data: whoever passes it on or keeps it needs to understand none of it."""


class StreamDeclared(Payload):
    """A stream's contract. Consumers name it by its offset in this topic."""

    name: Identifier
    spec: Declared
    caller: Caller | None = None

    @classmethod
    def of(cls, name: str, spec: StreamSpec, caller: Caller | None = None) -> StreamDeclared:
        return cls(name=name, spec=spec.written(), caller=caller)


class ModelDeclared(Payload):
    """A model's declaration, with the streams it needs as they stood then, so that it can be read alone."""

    name: Identifier
    spec: Declared
    streams: dict[Identifier, Declared]
    view_version: str
    caller: Caller | None = None

    @classmethod
    def of(
        cls,
        name: str,
        spec: ModelSpec,
        streams: Mapping[str, StreamSpec],
        view_version: str,
        caller: Caller | None = None,
    ) -> ModelDeclared:
        written = {stream: declared.written() for stream, declared in streams.items()}
        return cls(name=name, spec=spec.written(), streams=written, view_version=view_version, caller=caller)


class VersionRegistered(Payload):
    model: Identifier
    version: Count
    package: Digest
    package_uri: str
    package_bytes: Count
    view_version: str
    run_id: str
    dataset_version: Count
    estimator: Word
    threshold: Finite | None = None


class GateDecided(Payload):
    """One gate's verdict on one version, with the value it looked at and the bar it held it to."""

    model: Identifier
    version: Count
    package: Digest
    run_id: str
    gate: Word
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
    """As he called himself."""
    comment: str = ""
    caller: Caller | None = None


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
    cause: Word
    """promotion, approval, rollback, command."""
    cause_id: str
    run_id: str | None = None
    previous_version: Count | None = None
    rollback_target: RollbackTarget | None = None
    quarantined: Count | None = None
    """The version that a rollback took out of service until it is approved anew."""
    reason: str = ""
    caller: Caller | None = None
    """Who commanded it; null where the loop decided by itself."""
    effective_from: Time | None = None
    """Order time from which it answers on the stream; null: from the next record that it is there for."""
