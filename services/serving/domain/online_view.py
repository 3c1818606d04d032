"""The online view in memory: the windows of every entity, as the view's topic has them, ready to complete a request.

The writer thread applies what it has committed, in slices, and the event loop reads between two slices; each slice moves
the position along, so a request is answered from, and records, one exact position of the view.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import ViewUpdated
from evenkeel.libs.features import FeaturePlan, FeatureState, SlotUpdate
from evenkeel.libs.features.scalars import Fields

ViewKey = tuple[str, str]
"""(model, view version)."""
SLICE: Final = 64
"""Slots applied at a time: the longest that a request waits for the view, about 0.2 ms."""


class OnlineView:
    """One view version's windows."""

    __slots__ = ("number", "plan", "state", "watermark_us")

    def __init__(self, number: int, plan: FeaturePlan, watermark_us: int) -> None:
        self.number, self.plan, self.watermark_us = number, plan, watermark_us
        self.state = FeatureState(plan, journal=False)

    def is_expired(self, series: int, start_us: int) -> bool:
        """Whether a tile can no longer be in any window that is read."""
        return series >= len(self.plan.series) or start_us <= self.watermark_us - self.plan.series[series].window_us


class Completed(NamedTuple):
    """A request's vector, the time it was evaluated at, and the position of the view it was read from."""

    vector: list[float]
    at_us: int
    position: dict[str, int]


class OnlineViews:
    """The view versions that a champion or a declaration needs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._views: dict[ViewKey, OnlineView] = {}
        self._positions: dict[int, int] = {}

    def replace(self, views: Mapping[ViewKey, OnlineView], positions: Mapping[int, int]) -> None:
        """Begin anew from what the store holds."""
        with self._lock:
            self._views, self._positions = dict(views), dict(positions)

    def choose(self, views: Mapping[ViewKey, OnlineView]) -> None:
        """From here on these views, at the same position."""
        with self._lock:
            self._views = dict(views)

    def all(self) -> dict[ViewKey, OnlineView]:
        return dict(self._views)

    def watermark_us(self, key: ViewKey) -> int:
        view = self._views.get(key)
        return 0 if view is None else view.watermark_us

    def apply(
        self, batch: Sequence[Event[ViewUpdated]], positions: Mapping[int, int], watermarks: Mapping[ViewKey, int]
    ) -> None:
        """Take over what was committed. The watermarks go first: no tile may be later than the time it is read at."""
        with self._lock:
            moved = [(view, us) for key, us in watermarks.items() if (view := self._views.get(key)) is not None]
            for view, watermark_us in moved:
                view.watermark_us = max(view.watermark_us, watermark_us)
        name = version = ""
        state: FeatureState | None = None
        for start in range(0, len(batch), SLICE):
            with self._lock:
                for event in batch[start : start + SLICE]:
                    data = event.data
                    if data.view_version != version or data.view != name:
                        name, version = data.view, data.view_version
                        found = self._views.get((name, version))
                        state = None if found is None else found.state
                    if state is not None:
                        state.apply(SlotUpdate(data.slot, data.tile))  # type: ignore[arg-type]
                    self._positions[event.partition] = event.offset + 1
        with self._lock:
            self._positions.update(positions)
            for view, watermark_us in moved:
                view.state.evict(watermark_us)

    def complete(self, key: ViewKey, fields: Fields, time_us: int | None) -> Completed | None:
        """The vector of an event's fields at the later of its time and the view's watermark; None without that view."""
        with self._lock:
            view = self._views.get(key)
            if view is None:
                return None
            at_us = view.watermark_us if time_us is None or time_us < view.watermark_us else time_us
            vector = view.state.vector(fields, at_us)
            return Completed(vector, at_us, {str(partition): at for partition, at in self._positions.items()})
