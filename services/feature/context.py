"""What the handlers see: the views in memory, and how they get into the store and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from evenkeel.contracts.envelope import Event, parse_us
from evenkeel.contracts.feature import DatasetCommitted
from evenkeel.contracts.ids import LABEL_SUFFIX
from evenkeel.contracts.ingest import EventAccepted, LabelAccepted
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.libs.clock import DAY_US, SECOND_US
from evenkeel.libs.errors import NotYet
from evenkeel.libs.features import NotComputable, SlotUpdate, read_model
from evenkeel.libs.service import Context
from evenkeel.libs.store.protocol import Transaction
from evenkeel.services.feature.domain.rows import Folded
from evenkeel.services.feature.domain.view import NEVER_US, Counts, View, components
from evenkeel.services.feature.settings import FeatureSettings
from evenkeel.services.feature.store import FeatureStore, Progress, ViewProgress, ViewRow

log = structlog.get_logger(__name__)

Group = frozenset[tuple[type[Payload], str]]
Readers = dict[str, list[View]]
"""Stream → the views that fold it."""


class FeatureContext(Context):
    """Views by model, what has been seen, and what is not published or stored yet. All of it can be loaded again."""

    own: FeatureSettings

    def __init__(self) -> None:
        self.views: dict[str, View] = {}
        self.last_event_id = ""
        """CloudEvents id of the latest record folded."""
        self.offsets: dict[str, dict[str, int]] = {}
        """Topic → partition → all records folded lie below."""
        self.on_staged: Callable[[], None] = lambda: None
        """Called after a transaction that staged a commit."""
        self.table_bytes: dict[str, int] = {}
        """Model → its training table on disk, all versions, as of its last commit."""
        self._groups: dict[Group, Readers] = {}
        self._newest_stream = -1
        self._row = 0
        self._journal_records = 0
        self._journal_bytes = 0
        self._view_changed = False
        self._flush_at_us = 0
        self._has_staged = False
        self._left_out: list[tuple[int, ModelDeclared]] = []

    @property
    def store(self) -> FeatureStore:
        return FeatureStore(self.tx.connection)

    # -- loading ------------------------------------------------------------------------------------------------------

    def load(self, tx: Transaction) -> None:
        """Snapshot, then journal. What was folded after the last flush of the view is to be published again."""
        store = FeatureStore(tx.connection)
        rows = store.views()
        self.views = {row.model: self._view(store.model(row.declaration), row.declaration) for row in rows}
        for row in rows:
            self.views[row.model].state.restore(store.entities(row.model))
            self.views[row.model].restore_waiting(store.waiting(row.model))
        self._replay(store)
        found = store.progress()
        self._row, seen = found or (0, Progress("", {}, {}))
        self.last_event_id, self.offsets = seen.event_id, seen.offsets
        for row in rows:
            view = self.views[row.model]
            matured = [one for one in view.matured if one.label_time_us >= row.cut_us]
            first_us = store.open_label_us(row.model) or (matured[0].label_time_us if matured else None)
            view.matured, view.cut_us = matured, NEVER_US
            if first_us is not None:
                view.open_cut(first_us)
            self._restore_counts(view, seen)
        self._newest_stream = store.newest_stream()
        self._flush_at_us = 0
        self._has_staged = False
        newest = {declared.name: (offset, declared) for offset, declared in store.models()}
        self._left_out = [
            (offset, declared)
            for name, (offset, declared) in newest.items()
            if name not in self.views or self.views[name].declaration < offset
        ]
        self._regroup()

    def _replay(self, store: FeatureStore) -> None:
        self._journal_records = self._journal_bytes = 0
        self._view_changed = False
        flushed = store.flushed()
        for row, records, size in store.read_journal():
            if row > flushed and not self._view_changed:
                self._forget_changes()
                self._view_changed = True
            self._journal_records += max(1, len(records))
            self._journal_bytes += size
            for view in self.views.values():
                for record in records:
                    if record.stream in view.streams:
                        view.fold(record)
        if not self._view_changed:
            self._forget_changes()

    def _forget_changes(self) -> None:
        for view in self.views.values():
            view.state.take_changes(0)

    @staticmethod
    def _restore_counts(view: View, seen: Progress) -> None:
        one = seen.views.get(view.model)
        if one is not None:
            view.advance(one.watermark_us)
            view.counts = Counts(one.vectors, one.late, one.labelled, one.expired, one.unmatched)

    def _view(self, declared: ModelDeclared, declaration: int) -> View:
        """Raises NotComputable."""
        model, period_us = (
            read_model(declared.name, declared.spec, declared.streams),
            self.own.dataset_commit_days * DAY_US,
        )
        return View(declared.name, declaration, model.plan, model.rule, model.label.horizon_us, period_us)

    # -- declarations -------------------------------------------------------------------------------------------------

    def require(self, event: Event[EventAccepted | LabelAccepted]) -> None:
        """Raises NotYet if an event was checked under a declaration that has not been folded here yet.

        registry says what models a declaration brings before it says its streams, so they are known by then too.
        """
        if event.data.declaration > self._newest_stream:
            raise NotYet(f"stream declaration {event.data.declaration} has not been read yet")

    def stream_declared(self, offset: int) -> None:
        self._newest_stream = max(self._newest_stream, offset)

    def declare(self, offset: int, declared: ModelDeclared) -> bool:
        """From here on the model is computed by this declaration. The journal must be empty: all of it is replayed.

        False: it cannot be computed here. It is kept for a release that can; the model goes on by the former one, whose
        offset its vectors name.
        """
        assert not self._journal_records
        self.store.put_model(offset, declared)
        try:
            view = self._view(declared, offset)
        except NotComputable as error:
            log.error("a declaration is left out", declaration=offset, reason=str(error))
            return False
        former, row = self.views.get(declared.name), self.store.view(declared.name)
        if former is not None and row is not None and view.same_rows(former):
            former.declaration, former.horizon_us = offset, view.horizon_us
            self.store.put_view(replace(row, declaration=offset))
        else:
            cut_us, staged = (row.cut_us, row.staged) if row else (0, 0)
            # Windows follow from the features alone: with another label they go on, and so do their slots in the topic.
            keeps_windows = former is not None and view.plan.view_version == former.plan.view_version
            if former is not None and keeps_windows:
                view.state, view.watermark_us = former.state, former.watermark_us
            new = ViewRow(declared.name, offset, cut_us, staged, True)
            self.store.begin_view(new, keep_windows=keeps_windows)
            self.views[declared.name] = view
        self._regroup()
        return True

    def take_left_out(self) -> list[tuple[int, ModelDeclared]]:
        """Once after each load: the newest declarations that no view computes by. Another release may have left them out."""
        left_out, self._left_out = self._left_out, []
        return left_out

    def _regroup(self) -> None:
        self._groups = {}
        for streams in components(view.streams for view in self.views.values()):
            group = frozenset((LabelAccepted if s.endswith(LABEL_SUFFIX) else EventAccepted, s) for s in streams)
            views = [self.views[model] for model in sorted(self.views) if self.views[model].streams <= streams]
            self._groups[group] = {s: [view for view in views if s in view.streams] for s in streams}

    def merge_groups(self) -> Iterable[Group]:
        return self._groups

    def readers(self, group: Group) -> tuple[list[View], Readers]:
        """The views of a merge group, by model, and the ones that fold each of its streams."""
        readers = self._groups[group]
        views = {view.model: view for some in readers.values() for view in some}
        return [views[model] for model in sorted(views)], readers

    # -- journal, view and snapshot -----------------------------------------------------------------------------------

    def seen(self, event: Event[EventAccepted | LabelAccepted]) -> None:
        """The event is folded."""
        self.last_event_id = event.id
        offsets, partition = self.offsets.setdefault(event.topic, {}), str(event.partition)
        if event.offset >= offsets.get(partition, 0):
            offsets[partition] = event.offset + 1

    def progress(self) -> Progress:
        views = {
            view.model: ViewProgress(
                view.watermark_us,
                view.counts.vectors,
                view.counts.late,
                view.counts.labelled,
                view.counts.expired,
                view.counts.unmatched,
                view.waiting,
                view.state.entities,
            )
            for view in self.views.values()
        }
        return Progress(self.last_event_id, self.offsets, views)

    def keep(self, records: Sequence[Folded]) -> None:
        """One journal row for what was just folded; without records for a watermark alone, which is to be published too: a
        request at rest is evaluated at it."""
        self._row += 1
        self._journal_bytes += self.store.add_journal(self._row, records, self.progress())
        self._journal_records += max(1, len(records))
        self._view_changed = True

    @property
    def flush_due(self) -> bool:
        return self._view_changed and self.now_us >= self._flush_at_us

    @property
    def snapshot_due(self) -> bool:
        return self._journal_records >= self.own.snapshot_records or self._journal_bytes >= self.own.snapshot_bytes

    def take_view_changes(self) -> list[tuple[View, list[SlotUpdate]]]:
        """Slots that changed since they were last taken, to be published in this transaction.

        Many slots put the next time off, so that a replay spends its time on vectors: the longer the span, the more of
        its tiles are overwritten or expired by its end. What is put off is known again from the journal.
        """
        if not self._view_changed:
            return []
        self.store.put_flushed(self._row)
        changes = [(view, view.state.take_changes(view.watermark_us)) for view in self.views.values()]
        slots = sum(len(updates) for _, updates in changes)
        wait_us = max(self.own.view_flush_ms * 1000, slots * SECOND_US // self.own.view_slots_per_second)
        self._view_changed, self._flush_at_us = False, self.now_us + wait_us
        return changes

    def change_whole_view(self) -> None:
        """Every slot is to be published again."""
        for view in self.views.values():
            view.state.change_all()
        self._view_changed = bool(self.views)

    def snapshot(self) -> None:
        """Store what changed since the last one and empty the journal. View changes must have been taken before."""
        assert not self._view_changed
        for view in self.views.values():
            view.state.evict(view.watermark_us)
            self.store.put_entities(view.model, view.state.take_snapshots())
            self.store.change_waiting(view.model, *view.take_waiting())
            self.store.add_chunk(view.model, view.matured)
            view.matured = []
        self.store.put_snapshot(self._row, self.progress())
        self._journal_records = self._journal_bytes = 0

    # -- training tables ----------------------------------------------------------------------------------------------

    def stage(self, view: View) -> None:
        """Close the open commit of a view; what was folded so far is what it covers."""
        row, cut_us = self.store.view(view.model), view.cut_us
        assert row is not None
        announced = self._announced_before(view, cut_us)
        oldest_us = None
        if announced is not None:
            oldest_us = None if announced.data.kept_from is None else parse_us(announced.data.kept_from)
        elif self.is_compacted(row.staged + 1):
            oldest_us = cut_us - self.own.table_days * DAY_US
        self.store.add_chunk(view.model, view.close_cut())
        self.store.stage(row, view.plan.view_version, view.plan.names, cut_us, self.progress(), oldest_us)
        if announced is not None:
            commit = self.store.commit(view.model, row.staged + 1)
            assert commit is not None
            self.store.announce(commit, announced.data.version)
        self._has_staged = True

    def is_compacted(self, sequence: int) -> bool:
        """Whether the training table is tidied with this commit."""
        return sequence % self.own.compact_commits == 0

    def _announced_before(self, view: View, cut_us: int) -> Event[DatasetCommitted] | None:
        """While the store is rebuilt: that the table has this commit, and in which version, was said before."""
        for event in self.published_before:
            data = event.data
            if isinstance(data, DatasetCommitted) and (data.model, data.view_version, event.time_us) == (
                view.model,
                view.plan.view_version,
                cut_us,
            ):
                return event
        return None

    def committed(self) -> None:
        if self._has_staged:
            self._has_staged = False
            self.on_staged()
