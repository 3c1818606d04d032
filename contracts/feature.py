"""What feature publishes."""

from __future__ import annotations

from evenkeel.contracts.payload import Count, Finite, Identifier, Integer, Payload, RecordId, Time


class VectorComputed(Payload):
    """A model's features for one event, in the order of the model's feature schema, evaluated before the event was folded."""

    model: Identifier
    stream: Identifier
    event_id: RecordId
    view_version: str
    """Digest of the feature definitions; a package names the one it was trained on."""
    declaration: Count
    """Offset in `registry.model-declared` of the model's declaration."""
    values: list[Finite | None]
    """null: missing."""
    late: bool = False


class ViewUpdated(Payload):
    """The whole state of one tile of one window of one entity; it replaces what its ring slot held. A recomputable cache."""

    view: Identifier
    view_version: str
    slot: str
    """Aggregation, entity and ring slot."""
    tile: list[Finite | Integer | str | None]
    """[start_us, n, mean, M2, min, max, last_time_us, last_event_id, last_value]"""


class ViewStarted(Payload):
    """Where the inputs stood when feature began to compute a model by a declaration; what it had folded by then is not in
    that view's windows. A lost store is made again in this order."""

    model: Identifier
    view_version: str
    declaration: Count
    """Offset in `registry.model-declared` of the declaration."""
    offsets: dict[str, dict[str, Count]]
    """Per topic and partition, the offset up to which (exclusive) records had been read; one that is missing: none."""


class DatasetCommitted(Payload):
    """A version of a model's training table: labelled events whose label arrived before `label_cut`, not before `kept_from`."""

    model: Identifier
    uri: str
    version: Count
    view_version: str
    declaration: Count
    rows: Count
    """Rows in this version, all commits together."""
    added: Count
    first_event_time: Time
    last_event_time: Time
    """Of the events in this version, all commits together."""
    label_cut: Time
    """Labels that arrived before this event time are in; later ones are not."""
    as_of: Time | None = None
    """Order time that the cut was asked for; null: it was cut by its period."""
    kept_from: Time | None = None
    """Labels that arrived before this event time have left; null if none has since the table was begun."""
    offsets: dict[str, dict[str, Count]]
    """Per topic and partition, the offset up to which (exclusive) records had been folded."""
