"""One model's view as a pure fold: windows, vectors that wait for their label, and training rows.

Everything here follows from the sequence of folded records alone. A live run and a replay of the journal go through the
same `View.fold`, which is why a restart gives the same state bit for bit.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from evenkeel.contracts.ids import label_stream, view_stream
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.features import FeaturePlan, FeatureState, LabelRule
from evenkeel.services.feature.domain.rows import Folded, TrainingRow, Waiting

NEVER_US: Final = 2**63 - 1


@dataclass(slots=True)
class Counts:
    """What one view has done since it was declared."""

    vectors: int = 0
    late: int = 0
    labelled: int = 0
    expired: int = 0
    """Vectors whose label did not come within the horizon."""
    unmatched: int = 0
    """Labels without a waiting vector: of an unknown, labelled or expired event, or earlier than their event."""


class View:
    """One model's windows and training rows.

    `period_us`: event time of one commit of the training table. `horizon_us`: how long a vector waits for its label.
    """

    def __init__(
        self,
        model: str,
        declaration: int,
        plan: FeaturePlan,
        label: LabelRule,
        horizon_us: int,
        period_us: int = DAY_US,
    ) -> None:
        self.model, self.declaration, self.plan, self.label = model, declaration, plan, label
        self.horizon_us, self.period_us = horizon_us, period_us
        self.stream = view_stream(model, plan.view_version)
        """Under which its vectors and its watermark travel."""
        self.labels = label_stream(plan.stream)
        self.streams = frozenset({plan.stream, self.labels, *plan.sources})
        self.state = FeatureState(plan)
        self.counts = Counts()
        self.watermark_us = 0
        self.matured: list[TrainingRow] = []
        """Rows of the open commit that are not in a stored chunk yet, in the order in which their labels came."""
        self.cut_us = NEVER_US
        """End of the open commit: where the first record from here on closes it. NEVER_US while there is no row."""
        self._waiting: dict[str, Waiting] = {}
        self._unsaved: dict[str, None] = {}
        self._gone: list[str] = []
        self._sources = frozenset(plan.sources)

    @property
    def waiting(self) -> int:
        """How many vectors wait for their label."""
        return len(self._waiting)

    def same_rows(self, other: View) -> bool:
        """Whether both give the same vectors and labels, so that windows and table can go on."""
        return self.plan.view_version == other.plan.view_version and self.label == other.label

    def fold(self, record: Folded) -> list[float] | None:
        """Fold one record; the vector, evaluated before, if it is one of this model's events."""
        stream, order_us, time_us, record_id, label_of, fields = record
        vector = None
        if label_of is None:
            if stream == self.plan.stream:
                vector = self.state.vector(fields, order_us)
                self.counts.vectors += 1
                self._wait(record_id, Waiting(time_us, array("d", vector)))
        elif stream == self.labels:
            self._join(label_of, order_us, fields)
        if stream in self._sources:
            self.state.fold(stream, time_us, record_id, fields)
        return vector

    def _wait(self, event_id: str, waiting: Waiting) -> None:
        if event_id in self._waiting and event_id not in self._unsaved:
            self._gone.append(event_id)
        self._waiting[event_id] = waiting
        self._unsaved[event_id] = None

    def _join(self, event_id: str, order_us: int, fields: Mapping[str, object]) -> None:
        # A label that comes before its event finds nothing here: that event's vector sees the label in its windows, and
        # a row of it would teach a model to look into the future.
        value = self.label.value(fields)
        if value is None:
            return
        waiting = self._waiting.get(event_id)
        if waiting is None or order_us > waiting.time_us + self.horizon_us:
            self.counts.unmatched += 1
            return
        self._remove(event_id)
        self.counts.labelled += 1
        self.add_row(TrainingRow(event_id, waiting.time_us, order_us, value, waiting.values))

    def add_row(self, row: TrainingRow) -> None:
        """A matured row; the first one opens the commit of its period."""
        self.open_cut(row.label_time_us)
        self.matured.append(row)

    def open_cut(self, label_time_us: int) -> None:
        """A row of this label time belongs to the open commit."""
        if self.cut_us == NEVER_US:
            self.cut_us = label_time_us - label_time_us % self.period_us + self.period_us

    def close_cut(self) -> list[TrainingRow]:
        """Take the rows of the open commit that are in no chunk yet, and open the next."""
        rows, self.matured, self.cut_us = self.matured, [], NEVER_US
        return rows

    def _remove(self, event_id: str) -> None:
        del self._waiting[event_id]
        if event_id in self._unsaved:
            del self._unsaved[event_id]
        else:
            self._gone.append(event_id)

    def advance(self, watermark_us: int) -> None:
        """Nothing earlier than this comes any more: give up on the labels that are out of their horizon."""
        self.watermark_us = watermark_us
        oldest_us = watermark_us - self.horizon_us
        expired = []
        for event_id, waiting in self._waiting.items():
            if waiting.time_us >= oldest_us:
                break
            expired.append(event_id)
        for event_id in expired:
            self._remove(event_id)
        self.counts.expired += len(expired)

    # -- snapshots of what waits --------------------------------------------------------------------------------------

    def take_waiting(self) -> tuple[list[str], list[tuple[str, Waiting]]]:
        """Since the last take: the ids whose stored row goes, and then the vectors to store."""
        gone, self._gone = self._gone, []
        added = [(event_id, self._waiting[event_id]) for event_id in self._unsaved]
        self._unsaved = {}
        return gone, added

    def restore_waiting(self, items: Iterable[tuple[str, Waiting]]) -> None:
        self._waiting.update(sorted(items, key=lambda item: (item[1].time_us, item[0])))


def components(sets: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Join sets that share a member until none do.

    >>> sorted(map(sorted, components([frozenset("ab"), frozenset("cd"), frozenset("be")])))
    [['a', 'b', 'e'], ['c', 'd']]
    """
    joined: list[frozenset[str]] = []
    for one in sets:
        touching = [other for other in joined if other & one]
        joined = [other for other in joined if not other & one]
        joined.append(one.union(*touching))
    return joined
