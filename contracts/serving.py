"""What serving publishes."""

from __future__ import annotations

from evenkeel.contracts.payload import Count, Digest, Finite, Identifier, Payload, RecordId, Word


class PredictionMade(Payload):
    """One answer of one version. Its own features ride along unless a published vector holds them (`vector_id`)."""

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


class VersionActivated(Payload):
    """A replica's receipt: these bytes were verified, answered the golden rows, and now serve."""

    model: Identifier
    version: Count
    epoch: Count
    package: Digest
    replica: str
    load_seconds: Finite


class ActivationFailed(Payload):
    model: Identifier
    version: Count
    epoch: Count
    package: Digest
    replica: str
    reason: Word
    """not_found, digest, signature, golden_rows, view_version, load."""
    detail: str


class ReplicaSeen(Payload):
    """A replica is there (or leaves): this is what "every replica" means."""

    replica: str
    url: str
    state: Word
    """ready, stopping."""
    epochs: dict[Identifier, Count]
