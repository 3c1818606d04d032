"""What feature publishes."""

from __future__ import annotations

from evenkeel.contracts.payload import Count, Fact, Finite, Identifier, Integer, RecordId, Time
from evenkeel.contracts.words import count, offsets, short, span, when


class VectorComputed(Fact):
    """A model's features for one event, in the order of the model's feature schema, evaluated before the event was folded."""

    what = "vector"

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

    def sentence(self) -> str:
        missing = sum(value is None for value in self.values)
        absent = f", {missing} of them missing," if missing else ""
        late = "; the event came late" if self.late else ""
        return (
            f"{count(len(self.values), 'feature')}{absent} of event {self.event_id} for model {self.model}, view "
            f"{short(self.view_version)}, declaration {self.declaration}{late}"
        )


class ViewUpdated(Fact):
    """The whole state of one tile of one window of one entity; it replaces what its ring slot held. A recomputable cache."""

    what = "view slot"

    view: Identifier
    view_version: str
    slot: str
    """Aggregation, entity and ring slot."""
    tile: list[Finite | Integer | str | None]
    """[start_us, n, mean, M2, min, max, last_time_us, last_event_id, last_value]"""

    def sentence(self) -> str:
        return f"slot {self.slot} of the online view of {self.view} was written, view {short(self.view_version)}"


class ViewStarted(Fact):
    """Where the inputs stood when feature began to compute a model by a declaration; what it had folded by then is not in
    that view's windows. A lost store is made again in this order."""

    what = "view started"

    model: Identifier
    view_version: str
    declaration: Count
    """Offset in `registry.model-declared` of the declaration."""
    offsets: dict[str, dict[str, Count]]
    """Per topic and partition, the offset up to which (exclusive) records had been read; one that is missing: none."""

    def number(self, offset: int) -> int | None:
        return self.declaration

    def sentence(self) -> str:
        begun = f"after {offsets(self.offsets)}" if self.offsets else "from the beginning of its inputs"
        return (
            f"view {short(self.view_version)} of model {self.model} is computed {begun}, declaration {self.declaration}"
        )


class DatasetCommitted(Fact):
    """A version of a model's training table: labelled events whose label arrived before `label_cut`, not before `kept_from`."""

    what = "dataset"

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

    def number(self, offset: int) -> int | None:
        return self.version

    def sentence(self) -> str:
        kept = f" and not before {when(self.kept_from)}" if self.kept_from else ""
        asked = f", as asked for at {when(self.as_of)}" if self.as_of else ""
        return (
            f"version {self.version} of {self.uri} has {count(self.rows, 'row')}, {self.added:,} of them new: events from "
            f"{span(self.first_event_time, self.last_event_time)} whose labels arrived before {when(self.label_cut)}{kept}{asked}"
        )
