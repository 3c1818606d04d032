"""One model's measuring: a fold over its events in release order.

Time is cut into slots. Within a slot events only add up; when time passes its end, its windows are measured and the
detectors are asked, once. So nothing depends on how events came in batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.ingest import LabelAccepted
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.sketches.profile import Binning
from evenkeel.services.monitor.domain.decay import MIN_SLOTS, Decay, current, errors, find_decay, measured
from evenkeel.services.monitor.domain.drift import (
    ErrorRise,
    ErrorState,
    ErrorWatch,
    FeatureShift,
    Reference,
    feature_shifts,
    shifted,
)
from evenkeel.services.monitor.domain.joins import Joins, LogEntry, Open
from evenkeel.services.monitor.domain.policy import Baseline, Champion, Policy
from evenkeel.services.monitor.domain.slots import OpenSlot, Part, Rows, Slot, concatenate

NO_DECISION: Final = -1
"""There was no threshold, or the name of a class was answered."""
DECISION_CODES: Final[dict[object, int]] = {False: 0, True: 1}


@dataclass(frozen=True, slots=True)
class Span:
    """What a finding is about: the window, the champion, and the last event in it."""

    start_us: int
    end_us: int
    cause: str
    epoch: int
    version: int


@dataclass(frozen=True, slots=True)
class Measured:
    span: Span
    labelled: int
    predictions: int
    vectors: int
    versions: dict[int, int]
    """Version → labelled predictions."""
    metrics: dict[str, float | None]
    shifts: list[FeatureShift]


@dataclass(frozen=True, slots=True)
class InputsShifted:
    span: Span
    n: int
    shifts: list[FeatureShift]
    """Only those that are large and significant."""


@dataclass(frozen=True, slots=True)
class ErrorsRose:
    span: Span
    rise: ErrorRise
    shifts: list[FeatureShift]


@dataclass(frozen=True, slots=True)
class Decayed:
    span: Span
    decay: Decay
    in_bake_period: bool


@dataclass(frozen=True, slots=True)
class AlertCleared:
    """`alert`: "drift" or "decay"; one is raised by each signal."""

    span: Span
    alert: str
    because: str


Finding: TypeAlias = Measured | InputsShifted | ErrorsRose | Decayed | AlertCleared


class State(msgspec.Struct):
    """What changes only when a slot ends or a champion begins; with slots, open parts and joins it is all there is."""

    declaration: int
    slot_us: int | None = None
    """Start of the open slot."""
    epoch: int | None = None
    activated_us: int = 0
    """When the first prediction of the epoch took its turn."""
    drift_us: int | None = None
    decay_us: int | None = None
    """When they were last signalled."""
    raised: dict[str, int] = {}
    """Alert → since when."""
    measured_baseline: tuple[float, int] | None = None
    errors: dict[str, ErrorState] = {}
    """Detector → its state."""
    cause: str = ""
    """The last event of the slots before the open one."""
    forgotten_us: int = -(2**62)
    """What waited for a record before this was given up."""


encode_state = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(State).decode


@dataclass
class Outcome:
    """What a fold found, and what of it has to be stored."""

    findings: list[Finding] = field(default_factory=list)
    closed: list[Slot] = field(default_factory=list)
    part: Part | None = None
    entry: LogEntry | None = None
    slot_over: bool = False
    """The stored parts belong to a slot that is closed now."""
    state_changed: bool = False


class Measuring:
    """One model. `policies` by declaration and `champions` by epoch are facts that the caller keeps filling in."""

    def __init__(
        self,
        name: str,
        policies: Mapping[int, Policy],
        champions: Mapping[int, Champion],
        state: State | None = None,
    ) -> None:
        self.name = name
        self._policies, self._champions = policies, champions
        self.state = state or State(min(policies))
        self._declared = self.state.declaration
        self.policy = policies[self.state.declaration]
        self.joins = Joins(self.policy.horizon_us)
        self.slots: list[Slot] = []
        self.open: OpenSlot | None = None
        if self.state.slot_us is not None:
            self.open = OpenSlot(self.state.slot_us, self.state.epoch or 0, self.state.cause)
        self._errors = {
            name: ErrorWatch(name, parameters, self.state.errors.get(name))
            for name, parameters in self.policy.detectors.items()
        }
        self._reference: Reference | None = None
        self._binning: Binning | None = None
        self._view_version: str | None = None
        if self.state.epoch is not None:
            self._take_profile(champions[self.state.epoch])

    def restore(self, slots: Sequence[Slot], parts: Sequence[Part], entries: Sequence[LogEntry]) -> None:
        """Bring back what was stored since."""
        self.slots = list(slots)
        for entry in entries:
            self.joins.replay(entry)
        self.joins.forget(self.state.forgotten_us)
        for part in parts:
            assert self.open is not None
            self.open.replay(part, self._binning)

    # -- folding ------------------------------------------------------------------------------------------------------

    def fold(self, events: Sequence[Event[Any]], watermark_us: int) -> Outcome:
        """Take events in release order, and the watermark below which nothing follows any more.

        `events`: the model's vectors, its champions' predictions on the stream, and the labels of that stream.
        """
        outcome = Outcome()
        slot = self.open
        end_us = -(2**63) if slot is None else slot.start_us + self.policy.slot_us
        rule, joins, last_us = self.policy.label, self.joins, watermark_us
        for event in events:
            data, last_us = event.data, event.order_us
            if last_us >= end_us:
                self._advance(last_us, outcome)
                slot, rule, joins = self._opened(last_us, outcome), self.policy.label, self.joins
                end_us = slot.start_us + self.policy.slot_us
            assert slot is not None
            kind = type(data)
            if kind is LabelAccepted:
                value = rule.value(data.fields)
                if value is not None:
                    prediction = joins.label(data.event_id, last_us, value)
                    if prediction is not None:
                        slot.add_joined(value, prediction.score, prediction.decision, prediction.epoch)
            elif kind is PredictionMade:
                score, epoch, decision = data.score, data.epoch, DECISION_CODES.get(data.decision, NO_DECISION)
                if self.state.epoch is None or epoch > self.state.epoch:
                    self._activate(epoch, event.id, last_us, outcome)
                slot.predictions += 1
                label = joins.predict(data.event_id, last_us, Open(event.time_us, score, decision, epoch))
                if label is not None:
                    slot.add_joined(label, score, decision, epoch)
            else:
                slot.vectors += 1
                if data.view_version == self._view_version:
                    slot.add_vector(data.values)
                self._declared = max(self._declared, data.declaration)
            slot.cause = event.id
        self._advance(watermark_us, outcome)
        self._keep(last_us, outcome)
        return outcome

    def _keep(self, last_us: int, outcome: Outcome) -> None:
        entry = self.joins.take_entry(last_us)
        outcome.entry = None if entry.empty else entry
        if self.open is not None:
            part = self.open.take_part(self._binning)
            outcome.part = None if part.empty else part

    def _opened(self, time_us: int, outcome: Outcome) -> OpenSlot:
        if self.open is None:
            self.open = OpenSlot(
                time_us // self.policy.slot_us * self.policy.slot_us, self.state.epoch or 0, self.state.cause
            )
            self.state.slot_us = self.open.start_us
            outcome.state_changed = True
        return self.open

    def _advance(self, time_us: int, outcome: Outcome) -> None:
        """Close the slots that end at or before `time_us`; after the last one with anything in it there is nothing."""
        while self.open is not None and self.open.start_us + self.policy.slot_us <= time_us:
            self._close(self.open, outcome)
            start_us = self.open.start_us + self.policy.slot_us
            self._take_policy()
            oldest_us = start_us - self.policy.span_us
            self.slots = [slot for slot in self.slots if slot.start_us >= oldest_us]
            self.state.cause = self.open.cause
            self.open = OpenSlot(start_us, self.state.epoch or 0, self.state.cause) if self.slots else None
            self.state.slot_us = self.open.start_us if self.open else None
            self.state.forgotten_us = start_us
            self.joins.forget(start_us)
            outcome.slot_over = outcome.state_changed = True
            outcome.closed = [slot for slot in outcome.closed if slot in self.slots]

    def _close(self, open_slot: OpenSlot, outcome: Outcome) -> None:
        slot = open_slot.close(self._binning)
        if slot.predictions or slot.vectors or len(slot.rows):
            self.slots.append(slot)
            outcome.closed.append(slot)
        self._measure(open_slot, outcome)
        if self.state.epoch is not None and slot in self.slots:
            self._detect(open_slot, slot, outcome)

    def _take_policy(self) -> None:
        """A new declaration counts from the next slot on; with other windows nothing can be compared with the former."""
        if self._declared == self.state.declaration:
            return
        before, self.policy = self.policy, self._policies[self._declared]
        self.state.declaration = self._declared
        self.joins.horizon_us = self.policy.horizon_us
        if self.policy.slot_us != before.slot_us or self.policy.label != before.label:
            self.slots = []
        same = before.detectors if self.policy.label == before.label else {}
        self._restart_errors([name for name, one in self.policy.detectors.items() if same.get(name) == one])

    # -- champions ----------------------------------------------------------------------------------------------------

    def _activate(self, epoch: int, cause: str, time_us: int, outcome: Outcome) -> None:
        """A champion's first answer: what was found about the former one is over."""
        state = self.state
        assert self.open is not None
        span = Span(self.open.start_us, time_us, cause, epoch, self._champions[epoch].version)
        for alert in sorted(state.raised):
            outcome.findings.append(AlertCleared(span, alert, f"version {span.version} answers from here on"))
        state.epoch, state.activated_us = epoch, time_us
        state.drift_us = state.decay_us = state.measured_baseline = None
        state.raised = {}
        self._restart_errors()
        self._take_profile(self._champions[epoch])
        self.open.count_against(epoch)
        outcome.state_changed = True

    def _restart_errors(self, kept: Sequence[str] = ()) -> None:
        """Watch the errors by the present policy, from nothing but for the detectors that are kept."""
        watched = {name: self._errors[name] for name in kept}
        self.state.errors = {name: watch.state() for name, watch in watched.items()}
        self._errors = {
            name: watched.get(name) or ErrorWatch(name, parameters)
            for name, parameters in self.policy.detectors.items()
        }

    def _take_profile(self, champion: Champion) -> None:
        profile = champion.profile
        self._view_version = champion.view_version if profile is not None else None
        self._binning = None if profile is None else profile.binning
        self._reference = None if profile is None else Reference.of(profile)

    # -- measuring ----------------------------------------------------------------------------------------------------

    def _span(self, open_slot: OpenSlot, start_us: int, end_us: int) -> Span:
        epoch = self.state.epoch
        version = 0 if epoch is None else self._champions[epoch].version
        return Span(start_us, end_us, open_slot.cause, epoch or 0, version)

    def _measure(self, open_slot: OpenSlot, outcome: Outcome) -> None:
        end_us = open_slot.start_us + self.policy.slot_us
        for length_us in self.policy.windows_us:
            if end_us % length_us:
                continue
            slots = [slot for slot in self.slots if slot.start_us >= end_us - length_us]
            if not slots:
                continue
            rows = concatenate([slot.rows for slot in slots])
            versions: dict[int, int] = {}
            for epoch, count in zip(*np.unique(rows.epoch, return_counts=True), strict=True):
                version = self._champions[int(epoch)].version
                versions[version] = versions.get(version, 0) + int(count)
            outcome.findings.append(
                Measured(
                    self._span(open_slot, end_us - length_us, end_us),
                    len(rows),
                    sum(slot.predictions for slot in slots),
                    sum(slot.vectors for slot in slots),
                    versions,
                    measured(rows, self.policy),
                    self._shifts(slots),
                )
            )

    def _shifts(self, slots: Sequence[Slot]) -> list[FeatureShift]:
        compared = [slot for slot in slots if slot.counts is not None and slot.counts_epoch == self.state.epoch]
        if self._reference is None or not compared:
            return []
        return feature_shifts(self._reference, compared, self.policy.statistics)

    # -- detecting ----------------------------------------------------------------------------------------------------

    def _detect(self, open_slot: OpenSlot, slot: Slot, outcome: Outcome) -> None:
        """Ask the detectors, once a slot. A condition that holds is signalled when its cooldown is over."""
        state, policy, champion = self.state, self.policy, self._champions[self.state.epoch or 0]
        end_us = slot.start_us + policy.slot_us
        mine = slot.rows.of_epoch(champion.epoch)
        latest, min_samples = errors(mine), policy.monitoring.min_samples
        rises = []
        for watch in self._errors.values():
            watch.update(latest, slot.start_us, min_samples)
            rises += [rise for rise in [watch.confirmed(slot.start_us, latest, min_samples)] if rise is not None]
        state.errors = {name: watch.state() for name, watch in self._errors.items()}
        span = self._span(open_slot, end_us - policy.span_us, end_us)
        slots = [one for one in self.slots if one.start_us >= span.start_us]
        decay = self._decay(slots, champion, end_us)
        whole = [one for one in slots if one.start_us >= state.activated_us]
        within = state.activated_us <= span.start_us
        shifts = self._shifts(whole) if within else []
        n = sum(one.vectors for one in whole)
        large = shifted(shifts) if n >= min_samples else []
        if decay is not None and self._cool(end_us, state.decay_us):
            state.decay_us = end_us
            state.raised.setdefault("decay", end_us)
            in_bake = end_us <= state.activated_us + policy.bake_us
            outcome.findings.append(Decayed(span, decay, in_bake))
        # One episode, one signal: a retrained champion has seen what drifted, and decay has asked for the same cure.
        if self._cool(end_us, state.activated_us, state.drift_us, state.decay_us):
            if large:
                state.drift_us = end_us
                outcome.findings.append(InputsShifted(span, n, large))
            elif rises:
                state.drift_us = end_us
                outcome.findings.append(ErrorsRose(span, rises[0], shifts[:5]))
            if state.drift_us == end_us:
                state.raised.setdefault("drift", end_us)
        for alert, holds in (("drift", bool(large or rises)), ("decay", decay is not None)):
            if not holds and alert in state.raised and end_us >= state.raised[alert] + policy.span_us:
                del state.raised[alert]
                outcome.findings.append(AlertCleared(span, alert, "it is no longer found"))

    def _cool(self, now_us: int, *signalled_us: int | None) -> bool:
        return all(us is None or now_us >= us + self.policy.monitoring.cooldown_us for us in signalled_us)

    def _decay(self, slots: Sequence[Slot], champion: Champion, end_us: int) -> Decay | None:
        policy, state = self.policy, self.state
        parts = [rows for rows in (slot.rows.of_epoch(champion.epoch) for slot in slots) if len(rows)]
        least = MIN_SLOTS if policy.span_us > policy.slot_us else 1
        rows = concatenate(parts)
        if len(parts) < least or len(rows) < policy.monitoring.min_samples:
            return None
        baseline = champion.baseline
        if baseline is None:
            if state.measured_baseline is None:
                self._take_baseline(parts, rows, end_us)
                return None
            baseline = Baseline(*state.measured_baseline)
        return find_decay(parts, rows, baseline, policy)

    def _take_baseline(self, parts: Sequence[Rows], rows: Rows, end_us: int) -> None:
        """Without evidence the champion's first whole window is what it is held to."""
        if end_us >= self.state.activated_us + self.policy.span_us:
            found = current(parts, rows, self.policy.metric)
            if found is not None:
                self.state.measured_baseline = (found[0], len(rows))
