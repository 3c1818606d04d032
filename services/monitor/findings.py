"""From what a model's measuring found to payloads, with ids that follow from what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, assert_never

from evenkeel.contracts.declaration import format_duration
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.ids import alert_id, decay_id, drift_id, window_id
from evenkeel.contracts.monitor import AlertChanged, DriftDetected, FeatureDrift, PerformanceDegraded, WindowMeasured
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.clock import format_us
from evenkeel.libs.service import Cause, Derived
from evenkeel.services.monitor.domain.drift import FeatureShift
from evenkeel.services.monitor.domain.measuring import (
    AlertCleared,
    Decayed,
    ErrorsRose,
    InputsShifted,
    Measured,
    Span,
)

NAMED: Final = 3
"""Features named in a sentence."""


def window_measured(model: str, found: Measured) -> Derived:
    """Caused by the last event in the window; a window is a window whatever its champion, so that its id is, too."""
    span = found.span
    payload = WindowMeasured(
        model=model,
        window_start=format_us(span.start_us),
        window_end=format_us(span.end_us),
        epoch=span.epoch or None,
        version=span.version or None,
        labelled=found.labelled,
        predictions=found.predictions,
        vectors=found.vectors,
        versions={str(version): count for version, count in sorted(found.versions.items())},
        metrics=found.metrics,
        drift=[_feature(shift) for shift in found.shifts],
    )
    measured_id = window_id(model, span.start_us, span.end_us)
    return Derived(payload, Cause(span.cause, span.end_us, measured_id), id=measured_id)


class Signal(NamedTuple):
    """A signal, and the alert it raises for people."""

    kind: Literal["drift", "decay"]
    signal: Derived
    alert: AlertChanged
    raised: Derived


def signal(model: str, found: InputsShifted | ErrorsRose | Decayed) -> Signal:
    """A signal may start a turn of the loop, whose events then correlate with it."""
    payload: DriftDetected | PerformanceDegraded
    kind: Literal["drift", "decay"]
    match found:
        case Decayed():
            payload, kind = _degraded(model, found), "decay"
        case InputsShifted():
            payload, kind = _shifted(model, found), "drift"
        case ErrorsRose():
            payload, kind = _risen(model, found), "drift"
        case _:
            assert_never(found)
    span = found.span
    signal_id = (decay_id if kind == "decay" else drift_id)(model, span.epoch, span.end_us)
    derived = Derived(payload, Cause(span.cause, span.end_us, signal_id), id=signal_id)
    alert = AlertChanged(model=model, alert=kind, state="raised", detail=payload.detail)
    return Signal(kind, derived, alert, derive_alert(alert, Cause(signal_id, span.end_us, signal_id)))


def alert_cleared(model: str, found: AlertCleared) -> tuple[AlertChanged, Derived]:
    """What was found is over."""
    detail = f"{model}: {found.alert} is over: {found.because}"
    alert = AlertChanged(model=model, alert=found.alert, state="cleared", detail=detail)
    return alert, derive_alert(alert, Cause(found.span.cause, found.span.end_us, found.span.cause))


def profile_unusable(model: str, first: Event[PredictionMade]) -> tuple[AlertChanged, Derived]:
    """A champion's package was altered or is not signed by the trainer; serving has its own verification."""
    detail = f"{model}: the package of epoch {first.data.epoch} cannot be verified: its inputs are not compared with training"
    alert = AlertChanged(model=model, alert="profile", state="raised", detail=detail)
    return alert, derive_alert(alert, Cause(first.id, first.order_us, first.id))


def derive_alert(alert: AlertChanged, cause: Cause) -> Derived:
    return Derived(alert, cause, id=alert_id(alert.model, alert.alert, alert.state, cause.time_us))


def _feature(shift: FeatureShift) -> FeatureDrift:
    verdict = shift.verdict
    return FeatureDrift(
        feature=shift.feature,
        statistic=verdict.statistic,
        effect=verdict.effect,
        significance=verdict.significance,
        n=verdict.n,
    )


def _times(span: Span) -> dict[str, str]:
    return {"window_start": format_us(span.start_us), "window_end": format_us(span.end_us)}


def _over(span: Span) -> str:
    return f"over {format_duration(span.end_us - span.start_us)} to {format_us(span.end_us)}"


def _names(shifts: Sequence[FeatureShift]) -> str:
    return ", ".join(f"{shift.feature} ({shift.verdict.detail})" for shift in shifts[:NAMED])


def _shifted(model: str, found: InputsShifted) -> DriftDetected:
    top, more = found.shifts[0], len(found.shifts) - NAMED
    others = f" and {more} more" if more > 0 else ""
    return DriftDetected(
        model=model,
        detector=top.verdict.statistic,
        epoch=found.span.epoch,
        version=found.span.version,
        **_times(found.span),
        effect=top.verdict.effect,
        significance=top.verdict.significance,
        n=found.n,
        features=[_feature(shift) for shift in found.shifts],
        detail=f"{model}: inputs of version {found.span.version} are no longer distributed as in training "
        f"{_over(found.span)}, {found.n:,} vectors: {_names(found.shifts)}{others}",
    )


def _risen(model: str, found: ErrorsRose) -> DriftDetected:
    rise = found.rise
    near = f"; inputs furthest from training: {_names(found.shifts)}" if found.shifts else ""
    return DriftDetected(
        model=model,
        detector=rise.detector,
        epoch=found.span.epoch,
        version=found.span.version,
        **_times(found.span),
        effect=rise.effect,
        significance=rise.significance,
        n=rise.n,
        features=[_feature(shift) for shift in found.shifts],
        detail=f"{model}: the mean error of version {found.span.version} rose from {rise.before:.3f} to {rise.after:.3f} "
        f"around {format_us(rise.since_us)[:10]}, {rise.n:,} labelled predictions since{near}",
    )


def _degraded(model: str, found: Decayed) -> PerformanceDegraded:
    decay = found.decay
    return PerformanceDegraded(
        model=model,
        epoch=found.span.epoch,
        version=found.span.version,
        metric=decay.metric,
        baseline=decay.baseline,
        current=decay.current,
        effect=decay.effect,
        significance=decay.significance,
        n=decay.n,
        **_times(found.span),
        in_bake_period=found.in_bake_period,
        detail=f"{model}: {decay.metric} of version {found.span.version} went from {decay.baseline:.3f} to "
        f"{decay.current:.3f} {_over(found.span)}, {decay.n:,} labelled predictions"
        + (", in its bake period" if found.in_bake_period else ""),
    )
