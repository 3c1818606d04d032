"""The life of a model as seven services would tell it: declared, trained, promoted, drifted, rolled back, approved.

Records are built by the runtime's own builder, so ids, causes and envelopes are those of the real services.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evenkeel.contracts import ids
from evenkeel.contracts.declaration import Declaration
from evenkeel.contracts.envelope import parse_us
from evenkeel.contracts.feature import DatasetCommitted, VectorComputed
from evenkeel.contracts.ingest import EventAccepted, RawRecord
from evenkeel.contracts.monitor import DriftDetected, FeatureDrift, PerformanceDegraded
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import (
    ApprovalDecided,
    ChampionChanged,
    GateDecided,
    ModelDeclared,
    RollbackTarget,
    StreamDeclared,
    VersionRegistered,
)
from evenkeel.contracts.serving import PredictionMade, VersionActivated
from evenkeel.contracts.trainer import Comparison, DatasetVersion, RetrainDecided, RunCompleted, RunStarted, Scores
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.service import Cause, Derived
from evenkeel.libs.telemetry.tracing import Tracing

MODEL = "order-returned"
OTHER = "another-model"
VIEW = "5" * 64
GATES: tuple[Literal["better_than_champion", "golden_rows", "package_size"], ...] = (
    "better_than_champion",
    "golden_rows",
    "package_size",
)


def package(version: int) -> str:
    return f"sha256:{version:064x}"


def declaration() -> Declaration:
    path = Path(__file__).parents[1] / "docs" / "examples" / "smallest.yaml"
    return load_declaration(path.read_text(), path.name)


@dataclass
class Consumed:
    """A record as a consumer reads it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass
class Life:
    """Tells facts one after another; `records` is what stands on the topics then."""

    records: list[OutgoingRecord] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    """By the names that the steps below give them."""
    _sequences: dict[str, dict[str, int]] = field(default_factory=dict)

    def say(
        self, service: str, payloads: Sequence[Payload], cause: str, time: str, recorded: str, shard: str = "life"
    ) -> list[str]:
        """Publish what follows from one cause; the ids of the events."""
        before = self._sequences.setdefault(service, {})
        trace = Tracing(service, "test").batch()
        builder = OutputBuilder(service, f"store-of-{service}", before, parse_us(recorded), trace)
        because = Cause(cause, parse_us(time), cause)
        builder.add([Derived(payload, because, id=_id_of(payload, cause)) for payload in payloads], shard)
        before |= builder.sequences
        self.records += builder.records
        return [dict(record.headers)["ce_id"].decode() for record in builder.records]

    def tell(self) -> Life:
        """Everything. Days are event time in January 2013; the same hours of one day in 2026 are wall time."""
        self.declare()
        (data,) = self.dataset(7, "2013-01-08T00:00:00Z", "2026-11-20T08:00:00Z")
        self.turn(1, "first_data", data, "2013-01-08T00:00:00Z", "2026-11-20T08:30:00Z")
        self.promote(1, 1, "2013-01-08T00:00:00Z", "2026-11-20T09:00:00Z")
        drift = DriftDetected(
            model=MODEL,
            detector="psi",
            epoch=1,
            version=1,
            window_start="2013-01-13T00:00:00Z",
            window_end="2013-01-14T00:00:00Z",
            effect=0.31,
            significance=0.001,
            n=9_000,
            features=[FeatureDrift(feature="amount", statistic="psi", effect=0.31, significance=0.001, n=1000)],
            detail="amount has moved",
        )
        (self.ids["drift"],) = self.say("monitor", [drift], "window-14", "2013-01-14T00:00:00Z", "2026-11-20T09:30:00Z")
        self.dataset(13, "2013-01-14T00:00:00Z", "2026-11-20T09:31:00Z")
        self.turn(2, "drift", self.ids["drift"], "2013-01-14T00:00:00Z", "2026-11-20T09:40:00Z", 13)
        self.promote(2, 2, "2013-01-14T00:00:00Z", "2026-11-20T10:00:00Z")
        self.score("o-1", 2, 2, "2013-01-15T06:00:00Z", "2026-11-20T10:10:00Z")
        degraded = PerformanceDegraded(
            model=MODEL,
            epoch=2,
            version=2,
            metric="auc",
            baseline=0.76,
            current=0.66,
            effect=0.1,
            significance=0.0001,
            n=4_000,
            window_start="2013-01-15T00:00:00Z",
            window_end="2013-01-16T00:00:00Z",
            in_bake_period=True,
            detail="worse than its evidence",
        )
        (self.ids["decay"],) = self.say(
            "monitor", [degraded], "window-16", "2013-01-16T00:00:00Z", "2026-11-20T10:30:00Z"
        )
        self.roll_back(3, "2013-01-16T00:00:00Z", "2026-11-20T11:00:00Z")
        self.dataset(19, "2013-01-20T00:00:00Z", "2026-11-20T11:10:00Z")
        self.turn(3, "command", "a-click", "2013-01-20T00:00:00Z", "2026-11-20T11:20:00Z", 19)
        self.approve(4, 3, "2013-01-20T00:00:00Z", "2026-11-20T12:00:00Z")
        self.score("o-2", 3, 4, "2013-01-21T06:00:00Z", "2026-11-20T12:10:00Z")
        return self

    def declare(self) -> None:
        declared = declaration()
        when = ("2013-01-01T00:00:00Z", "2026-11-20T07:00:00Z")
        spec = declared.models[MODEL]
        self.say("registry", [StreamDeclared.of(name="orders", spec=declared.streams["orders"])], "apply", *when)
        models = [
            ModelDeclared.of(name=name, spec=spec, streams=declared.streams, view_version=VIEW)
            for name in (OTHER, MODEL)
        ]
        self.say("registry", models, "apply", *when)

    def dataset(self, version: int, cut: str, recorded: str) -> list[str]:
        committed = DatasetCommitted(
            model=MODEL,
            uri=f"tables/{MODEL}",
            version=version,
            view_version=VIEW,
            declaration=1,
            rows=1000 * version,
            added=1000,
            first_event_time="2013-01-01T00:00:00Z",
            last_event_time=cut,
            label_cut=cut,
            offsets=_offsets(version),
        )
        return self.say("feature", [committed], f"cut-{version}", cut, recorded)

    def turn(self, version: int, trigger: str, asked_by: str, time: str, recorded: str, data: int = 7) -> None:
        """Decision, run, version and gates."""
        run_id, champion = f"run-{version}", None if version == 1 else package(version - 1)
        dataset = DatasetVersion(
            uri=f"tables/{MODEL}", version=data, rows=1000 * data, label_cut=time, offsets=_offsets(data)
        )
        decided = RetrainDecided(
            model=MODEL,
            retrain=True,
            trigger=trigger,
            reason="accepted",
            detail="within budget",
            cause_id=asked_by,
            as_of=time,
            dataset=dataset,
            run_id=run_id,
        )
        (self.ids[f"decision-{version}"],) = self.say("trainer", [decided], asked_by, time, recorded)
        started = RunStarted(model=MODEL, run_id=run_id, attempt=1, dataset=dataset, champion=champion)
        self.say("trainer", [started], f"job-{version}", time, recorded)
        compared = Comparison(
            metric="auc",
            n=900,
            candidate=0.76,
            champion=0.74,
            improvement=0.02,
            standard_error=0.01,
            improvement_lower=0.01,
            improvement_upper=0.2,
            confidence=0.95,
        )
        completed = RunCompleted(
            model=MODEL,
            run_id=run_id,
            trigger=trigger,
            package=package(version),
            package_uri=f"artifacts/sha256/{version:064x}",
            package_bytes=12_345,
            view_version=VIEW,
            declaration=1,
            estimator="hist_gradient_boosting",
            parameters={"depth": 6},
            threshold=0.5,
            dataset=dataset,
            training_rows=4_000,
            evaluation_rows=900,
            candidate=Scores(digest=package(version), metrics={"auc": 0.76}),
            champion=None if champion is None else Scores(digest=champion, metrics={"auc": 0.74}),
            comparison=None if champion is None else compared,
            golden_rows=16,
            golden_matched=True,
            code_commit="c0ffee",
            seed=7,
            duration_seconds=3.0,
        )
        (run,) = self.say("trainer", [completed], f"done-{version}", time, recorded)
        self.ids[run_id] = run
        registered = VersionRegistered(
            model=MODEL,
            version=version,
            package=package(version),
            package_uri=completed.package_uri,
            package_bytes=completed.package_bytes,
            view_version=VIEW,
            run_id=run_id,
            dataset_version=data,
            estimator=completed.estimator,
            threshold=0.5,
        )
        gates = [
            GateDecided(
                model=MODEL,
                version=version,
                package=package(version),
                run_id=run_id,
                gate=gate,
                of=len(GATES),
                passed=True,
                detail="ok",
            )
            for gate in GATES
        ]
        self.say("registry", [registered, *gates], run, time, recorded)

    def change(
        self, epoch: int, version: int, cause: Any, cause_id: str, time: str, recorded: str, **more: Any
    ) -> None:
        before = more.pop("before", version - 1 or None)
        target = None
        if before is not None and cause != "rollback":
            target = RollbackTarget(version=before, package=package(before), package_uri="", threshold=0.5)
        changed = ChampionChanged(
            model=MODEL,
            epoch=epoch,
            version=version,
            package=package(version),
            package_uri=f"artifacts/sha256/{version:064x}",
            view_version=VIEW,
            threshold=0.5,
            cause=cause,
            cause_id=cause_id,
            run_id=f"run-{version}",
            previous_version=before,
            rollback_target=target,
            **more,
        )
        (event_id,) = self.say("registry", [changed], cause_id, time, recorded)
        self.ids[f"epoch-{epoch}"] = event_id
        activated = VersionActivated(
            model=MODEL, version=version, epoch=epoch, package=package(version), replica="r1", load_seconds=0.1
        )
        self.say("serving", [activated], event_id, time, recorded)

    def promote(self, epoch: int, version: int, time: str, recorded: str) -> None:
        self.change(epoch, version, "promotion", self.ids[f"run-{version}"], time, recorded)

    def roll_back(self, epoch: int, time: str, recorded: str) -> None:
        reason = "worse than its evidence"
        self.change(epoch, 1, "rollback", self.ids["decay"], time, recorded, before=2, quarantined=2, reason=reason)

    def approve(self, epoch: int, version: int, time: str, recorded: str) -> None:
        approved = ApprovalDecided(
            model=MODEL,
            version=version,
            package=package(version),
            epoch=epoch - 1,
            nonce="n",
            approved=True,
            approver="Ada",
            comment="seen the evidence",
        )
        self.say("registry", [approved], "approval-click", time, recorded)
        self.change(epoch, version, "approval", "approval-click", time, recorded, before=1)

    def score(self, event_id: str, version: int, epoch: int, time: str, recorded: str) -> None:
        """A raw record accepted, its vectors for two models, and the predictions. Any text may be an event's id."""
        raw = RawRecord(topic="shop.orders", partition=1, offset=41, sha256="a" * 64)
        fields = {"order_id": event_id, "amount": 12.5, "customer": "c1"}
        accepted = EventAccepted(stream="orders", event_id=event_id, fields=fields, declaration=0, raw=raw)
        self.ids[f"accepted-{event_id}"] = self._data("ingest", "shop.orders/1/41", [accepted], time, recorded)[0]
        vectors = [
            VectorComputed(
                model=model,
                stream="orders",
                event_id=event_id,
                view_version=VIEW,
                declaration=declared,
                values=[12.5, None, 3.0],
            )
            for declared, model in enumerate((OTHER, MODEL))
        ]
        vector_ids = self._data("feature", self.ids[f"accepted-{event_id}"], vectors, time, recorded)
        self.ids[f"vector-{event_id}"] = vector_ids[1]
        for model, scored in zip((OTHER, MODEL), vector_ids, strict=True):
            made = prediction(event_id, version, epoch, model=model, vector_id=scored)
            self.ids[f"{model}-{event_id}"] = self._data("serving", scored, [made], time, recorded)[0]

    def ask(self, event_id: str, version: int, epoch: int, time: str, recorded: str) -> str:
        """A prediction for a request, with its own features."""
        made = prediction(event_id, version, epoch, origin="request", values=[1.0, 2.0, 3.0])
        return self._data("serving", f"request-{event_id}", [made], time, recorded)[0]

    def _data(self, service: str, cause: str, payloads: Sequence[Payload], time: str, recorded: str) -> list[str]:
        return self.say(service, payloads, cause, time, recorded, "orders")


def _id_of(payload: Payload, cause: str) -> str | None:
    """Where an id follows from more than the cause."""
    if isinstance(payload, EventAccepted):
        return ids.accepted_event_id(payload.stream, payload.event_id)
    if isinstance(payload, VectorComputed):
        return ids.vector_id(cause, payload.model, payload.view_version)
    if isinstance(payload, PredictionMade) and payload.vector_id is not None:
        return ids.prediction_id(payload.vector_id)
    return None


def prediction(event_id: str, version: int, epoch: int, **more: Any) -> PredictionMade:
    return PredictionMade(
        **{
            "model": MODEL,
            "stream": "orders",
            "event_id": event_id,
            "version": version,
            "epoch": epoch,
            "package": package(version),
            "origin": "stream",
            "score": 0.25,
            "decision": False,
            "view_version": VIEW,
        }
        | more
    )


def consumed(records: Sequence[OutgoingRecord], offsets: dict[tuple[str, int], int] | None = None) -> list[Consumed]:
    """The records as a consumer that reads every topic gets them."""
    ends = {} if offsets is None else offsets
    read = []
    for record in records:
        place = (record.topic, record.partition)
        offset = ends.get(place, 0)
        ends[place] = offset + 1
        read.append(Consumed(*place, offset, 1_795_000_000_000, record.key, record.value, tuple(record.headers)))
    return read


def _offsets(version: int) -> dict[str, dict[str, int]]:
    return {"ingest.event-accepted.v1": {"0": 300 * version, "1": 310 * version}}
