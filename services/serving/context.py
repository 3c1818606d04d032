"""What the handlers, the scorer and the HTTP side see: champions, declarations and the online view."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog

from evenkeel.contracts.declaration import StreamSpec
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import ViewUpdated
from evenkeel.contracts.ids import view_of
from evenkeel.contracts.runtime import ClockAdvanced
from evenkeel.libs.features import FeaturePlan, NotComputable, SlotUpdate, read_model
from evenkeel.libs.features.tiles import Tile
from evenkeel.libs.service import Context
from evenkeel.libs.store.protocol import Transaction
from evenkeel.services.serving.domain.champions import Champion, ChampionDecision, Succession
from evenkeel.services.serving.domain.online_view import OnlineView, OnlineViews, ViewKey
from evenkeel.services.serving.metrics import ServingMetrics
from evenkeel.services.serving.settings import ServingSettings
from evenkeel.services.serving.store import Declared, Progress, ServingStore, ViewRow, slot_key, slot_value

log = structlog.get_logger(__name__)

SWEEP_SLOTS: Final = 2_000
"""Slots looked at per tick for expired ones, as many as feature publishes in a second by default."""


class Plan(NamedTuple):
    """One declared view version of a model: what its features are, and the stream they are about."""

    offset: int
    stream: str
    spec: StreamSpec
    features: FeaturePlan


class ServingContext(Context):
    """Caches of what is committed; `successions` alone is written by the event loop."""

    own: ServingSettings

    def __init__(self) -> None:
        self.metrics = ServingMetrics()
        self.views = OnlineViews()
        self.plans: dict[ViewKey, Plan] = {}
        self.facts: dict[str, ChampionDecision] = {}
        self.successions: dict[str, Succession] = {}
        """Model → who answers here. A swap replaces one entry."""
        self.settled = threading.Event()
        """Set once every champion known at the start was tried: before, no vector is scored."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after a commit that changed plans or facts."""
        self._rows: dict[ViewKey, ViewRow] = {}
        self._progress = Progress(0, {})
        self._in_memory: int | None = None
        """Stamp of the view that `views` holds."""
        self._staged: list[Callable[[], None]] = []
        self._shapes: set[tuple[type, ...]] = set()
        self._sweep_from = b""
        self._swept_at = -1

    @property
    def store(self) -> ServingStore:
        return ServingStore(self.tx.connection)

    def champion(self, model: str) -> Champion | None:
        succession = self.successions.get(model)
        return None if succession is None else succession.active

    # -- loading ------------------------------------------------------------------------------------------------------

    def load(self, tx: Transaction) -> None:
        """Declarations and facts are few; the view's slots are read only if the store has moved without us."""
        store = ServingStore(tx.connection)
        self._staged = []
        found = ((_key(declared), _plan(declared)) for declared in store.models())
        self.plans = {key: plan for key, plan in found if plan is not None}
        self.facts = store.facts()
        self._rows = {(row.view, row.view_version): row for row in store.views()}
        self._progress = store.progress()
        if self._progress.stamp != self._in_memory:
            views = {key: self._filled(store, row) for key, row in self._rows.items() if self._is_wanted(key)}
            self.views.replace(views, self._progress.positions)
            self._in_memory = self._progress.stamp
        self.on_change()

    def _filled(self, store: ServingStore, row: ViewRow) -> OnlineView:
        view = OnlineView(row.number, self.plans[row.view, row.view_version].features, row.watermark_us)
        for slot, tile in store.slots(row.number):
            if not view.is_expired(int(slot.partition("|")[0]), int(tile[0])):
                view.state.apply(SlotUpdate(slot, tile))
        return view

    def _is_wanted(self, key: ViewKey) -> bool:
        """A view that the latest declaration or the champion computes with, and that can be computed."""
        plan, fact = self.plans.get(key), self.facts.get(key[0])
        if plan is None:
            return False
        is_latest = all(other.offset <= plan.offset for (model, _), other in self.plans.items() if model == key[0])
        return is_latest or (fact is not None and fact.view_version == key[1])

    def committed(self) -> None:
        staged, self._staged = self._staged, []
        for change in staged:
            change()

    # -- control plane ------------------------------------------------------------------------------------------------

    def declare(self, declared: Declared) -> None:
        """Take over a declaration; its view's slots may have come before it. One that cannot be computed here is kept for
        a release that can."""
        self.store.put_model(declared)
        plan = _plan(declared)
        if plan is None:
            return
        self.plans = self.plans | {_key(declared): plan}
        self._row(_key(declared))
        self._choose_views()

    def decide(self, fact: ChampionDecision) -> bool:
        """Take over a fact; False if this epoch or a later one is known."""
        known = self.store.fact(fact.model)
        if known is not None and known.epoch >= fact.epoch:
            return False
        self.store.put_fact(fact)
        self.facts = self.facts | {fact.model: fact}
        self._choose_views()
        return True

    def _choose_views(self) -> None:
        held = self.views.all()
        wanted = [row for key, row in self._rows.items() if self._is_wanted(key)]
        chosen = {
            (row.view, row.view_version): held.get((row.view, row.view_version)) or self._filled(self.store, row)
            for row in wanted
        }
        self._staged += (lambda: self.views.choose(chosen), self.on_change)

    # -- the online view ----------------------------------------------------------------------------------------------

    def _row(self, key: ViewKey) -> ViewRow:
        row = self._rows.get(key)
        if row is None:
            row = ViewRow(*key, 1 + max((known.number for known in self._rows.values()), default=0), 0)
            self.store.put_view(row)
            self._rows[key] = row
        return row

    def put_slots(self, events: Sequence[Event[ViewUpdated | ClockAdvanced]]) -> None:
        """Keep the slots of one batch, the last of each, and how far their views have come: to what a clock record says, and
        at least to the last record in a slot, which may be read before the clock record behind it. Raises ValueError for a
        slot that cannot be kept."""
        updates: list[Event[Any]] = []
        slots: dict[bytes, bytes] = {}
        watermarks: dict[ViewKey, int] = {}
        positions = dict(self._progress.positions)
        key: ViewKey = ("", "")
        number = 0
        for event in events:
            data = event.data
            positions[event.partition] = event.offset + 1
            if isinstance(data, ClockAdvanced):
                for stream, time_us in data.times_us().items():
                    view = view_of(stream)
                    watermarks[view] = max(watermarks.get(view, 0), time_us)
                continue
            updates.append(event)
            slot, tile = data.slot, data.tile
            if data.view_version != key[1] or data.view != key[0]:
                key = (data.view, data.view_version)
                number = self._row(key).number
            shape = tuple(map(type, tile))
            if shape not in self._shapes or tile[1] < 1:  # type: ignore[operator]
                Tile.from_state(tile)
                self._shapes.add(shape)
            slots[slot_key(number, slot)] = slot_value(slot, tile)
            if event.time_us > watermarks.get(key, 0):
                watermarks[key] = event.time_us
        self.store.put_slots(slots)
        for key, watermark_us in watermarks.items():
            row = self._row(key)
            if watermark_us > row.watermark_us:
                self._rows[key] = ViewRow(*key, row.number, watermark_us)
                self.store.put_view(self._rows[key])
        stamp = self._progress.stamp + 1
        self._progress = Progress(stamp, positions)
        self.store.put_progress(self._progress)
        self._staged.append(lambda: self._apply(updates, positions, watermarks, stamp))

    def _apply(
        self,
        updates: Sequence[Event[ViewUpdated]],
        positions: Mapping[int, int],
        watermarks: Mapping[ViewKey, int],
        stamp: int,
    ) -> None:
        self.views.apply(updates, positions, watermarks)
        self._in_memory = stamp
        self.metrics.slots.inc(len(updates))

    def sweep(self) -> None:
        """Forget slots that no window reads any more, some per call: expired ones, and views that nobody wants."""
        if not self._sweep_from:
            if self._progress.stamp == self._swept_at:
                return
            self._swept_at = self._progress.stamp
        declared = {row.number for key, row in self._rows.items() if key in self.plans}
        views = {view.number: view for view in self.views.all().values()}
        found = self.store.slots_from(self._sweep_from, SWEEP_SLOTS)
        gone: list[bytes] = []
        for key, number, series, start_us in found:
            view = views.get(number)
            if view.is_expired(series, start_us) if view is not None else number in declared:
                gone.append(key)
        self.store.remove_slots(gone)
        self._sweep_from = found[-1][0] + b"\0" if len(found) == SWEEP_SLOTS else b""
        for (model, _), view in self.views.all().items():
            self.metrics.entities.labels(model).set(view.state.entities)


def _key(declared: Declared) -> ViewKey:
    return declared.model.name, declared.model.view_version


def _plan(declared: Declared) -> Plan | None:
    try:
        model = read_model(declared.model.name, declared.model.spec, declared.model.streams)
    except NotComputable as error:
        log.error("a declaration is left out", declaration=declared.offset, reason=str(error))
        return None
    return Plan(declared.offset, model.spec.stream, model.stream, model.plan)
