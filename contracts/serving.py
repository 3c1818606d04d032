"""What serving publishes."""

from __future__ import annotations

from typing import Final

from evenkeel.contracts.payload import Count, Digest, Fact, Finite, Identifier, RecordId, Word
from evenkeel.contracts.words import listed, seconds

ORIGINS_IN_WORDS: Final = {"stream": "on the stream", "request": "for a request"}


class PredictionMade(Fact):
    """One answer of one version. Its own features ride along unless a published vector holds them (`vector_id`)."""

    what = "prediction"

    model: Identifier
    stream: Identifier
    event_id: RecordId
    """The event predicted for; a request without one gets an id of its own."""
    version: Count
    epoch: Count
    package: Digest
    origin: Word
    """stream, request."""
    role: Word = "champion"
    """What the version was to its model when it answered: champion, canary, shadow. Only the champion's answer counts."""
    score: Finite
    """Probability of the positive class, or the regression's value."""
    scores: dict[str, Finite] | None = None
    """Class → score, where there are more than two."""
    decision: bool | str | None = None
    """Whether it is the positive class, or the name of the class."""
    view_version: str
    vector_id: str | None = None
    values: list[Finite | None] | None = None
    view_position: dict[str, Count] | None = None
    """Partition → next offset of the view that completed a request by keys."""

    def follows_from(self) -> str | None:
        return self.vector_id

    def sentence(self) -> str:
        answer = self.decision if isinstance(self.decision, str) else "yes" if self.decision else "no"
        decided = "" if self.decision is None else f", decided {answer}"
        return (
            f"version {self.version} of {self.model} (epoch {self.epoch}, {self.role}) scored {self.score:.4f} for event "
            f"{self.event_id}{decided}, {ORIGINS_IN_WORDS.get(self.origin, f'asked by {self.origin}')}"
        )


class VersionActivated(Fact):
    """A replica's receipt: these bytes were verified, answered the golden rows, and now serve."""

    what = "activation"

    model: Identifier
    version: Count
    epoch: Count
    package: Digest
    replica: str
    load_seconds: Finite

    def number(self, offset: int) -> int | None:
        return self.epoch

    def sentence(self) -> str:
        return (
            f"replica {self.replica} verified version {self.version} and serves it (epoch {self.epoch}), loaded in "
            f"{seconds(self.load_seconds)}"
        )


class ActivationFailed(Fact):
    what = "activation failed"

    model: Identifier
    version: Count
    epoch: Count
    package: Digest
    replica: str
    reason: Word
    """not_found, digest, signature, golden_rows, view_version, load."""
    detail: str

    def number(self, offset: int) -> int | None:
        return self.epoch

    def sentence(self) -> str:
        return (
            f"replica {self.replica} could not take version {self.version} (epoch {self.epoch}, {self.reason}): "
            f"{self.detail}"
        )


class ReplicaSeen(Fact):
    """A replica is there (or leaves): this is what "every replica" means."""

    what = "replica"

    replica: str
    url: str
    state: Word
    """ready, stopping."""
    epochs: dict[Identifier, Count]

    def number(self, offset: int) -> int | None:
        return None

    def sentence(self) -> str:
        serves = listed(f"{model} epoch {epoch}" for model, epoch in sorted(self.epochs.items()))
        return f"replica {self.replica} at {self.url} is {self.state}, serving {serves}"
