"""What registry publishes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.payload import Caller, Count, Digest, Fact, Finite, Identifier, Payload, Time, Word, person
from evenkeel.contracts.words import count, short, size, when

Declared: TypeAlias = Annotated[
    dict[str, Any], Field(description="As declared, by contracts/schemas/declaration.json of the release that took it.")
]
"""A part of a declaration as data: whoever passes it on or keeps it needs to understand none of it."""


def _by(caller: Caller | None) -> str:
    return "" if caller is None else f" by {caller.name} ({caller.role})"


def _said(declared: object, *path: str) -> Any:
    """What a declaration says at a place; None if that is not there, or is something else in a newer release."""
    for key in path:
        declared = declared.get(key) if isinstance(declared, Mapping) else None
    return declared


class StreamDeclared(Fact):
    """A stream's contract. Consumers name it by its offset in this topic."""

    what = "stream declaration"

    name: Identifier
    spec: Declared
    caller: Caller | None = None

    @classmethod
    def of(cls, name: str, spec: StreamSpec, caller: Caller | None = None) -> StreamDeclared:
        return cls(name=name, spec=spec.written(), caller=caller)

    def number(self, offset: int) -> int | None:
        return offset

    def sentence(self) -> str:
        topic, fields, labels = (_said(self.spec, *path) for path in (("topic",), ("fields",), ("label", "topic")))
        return (
            f"stream {self.name} was declared{_by(self.caller)}: topic {topic}, "
            f"{count(len(fields or ()), 'field')}{'' if labels is None else f', labels on topic {labels}'}"
        )


class ModelDeclared(Fact):
    """A model's declaration, with the streams it needs as they stood then, so that it can be read alone."""

    what = "model declaration"

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

    def number(self, offset: int) -> int | None:
        return offset

    def sentence(self) -> str:
        return (
            f"model {self.name} was declared{_by(self.caller)}: {_said(self.spec, 'task')} on "
            f"stream {_said(self.spec, 'stream')}, view {short(self.view_version)}, "
            f"promotion risk {_said(self.spec, 'promotion', 'risk')}"
        )


class VersionRegistered(Fact):
    what = "version"

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

    def number(self, offset: int) -> int | None:
        return self.version

    def sentence(self) -> str:
        return (
            f"version {self.version} is package {short(self.package)} of run {self.run_id}, {self.estimator}, "
            f"{size(self.package_bytes)}"
        )


class GateDecided(Fact):
    """One gate's verdict on one version, with the value it looked at and the bar it held it to."""

    what = "gate"

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

    def number(self, offset: int) -> int | None:
        return self.version

    def sentence(self) -> str:
        return f"{self.gate} {'passed' if self.passed else 'failed'} for version {self.version}: {self.detail}"


class ApprovalDecided(Fact):
    what = "approval"

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

    def number(self, offset: int) -> int | None:
        return self.version

    def sentence(self) -> str:
        comment = f": {self.comment}" if self.comment else ""
        return (
            f"{person(self.approver, self.caller)} {'approved' if self.approved else 'rejected'} version {self.version} "
            f"against epoch {self.epoch}{comment}"
        )


class RollbackTarget(Payload):
    version: Count
    package: Digest
    package_uri: str
    threshold: Finite | None = None


class ChampionChanged(Fact):
    """From this epoch on, this version answers. The highest epoch wins."""

    what = "champion"

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

    def number(self, offset: int) -> int | None:
        return self.epoch

    def sentence(self) -> str:
        commanded = "" if self.caller is None else f", commanded{_by(self.caller)},"
        before = "" if self.previous_version is None else f" in place of version {self.previous_version}"
        since = "" if self.effective_from is None else f", on the stream from {when(self.effective_from)} on"
        out = "" if self.quarantined is None else f"; version {self.quarantined} is quarantined"
        why = f": {self.reason}" if self.reason else ""
        return (
            f"version {self.version} became champion of {self.model} (epoch {self.epoch}) by {self.cause}{commanded}"
            f"{before}{since}{out}{why}"
        )
