"""What monitor's tests are made of: a declared model, a signed package, events, and the service on a real store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evenkeel.contracts.declaration import DAY_US, ModelSpec, MonitoringPolicy, StreamSpec
from evenkeel.contracts.envelope import Event, format_us
from evenkeel.contracts.ids import view_stream
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.clock import parse_us
from evenkeel.libs.keys import signing_key
from evenkeel.libs.packages.manifest import DatasetRecord, FeatureSchema, GoldenRows, ManifestCore, ModelFile, Split
from evenkeel.libs.packages.package import PackageContents, PackageRef, write_package
from evenkeel.libs.service import Derived, Released, Reply
from evenkeel.libs.sketches.profile import build_profile
from evenkeel.services.monitor.context import MonitorContext
from evenkeel.services.monitor.handlers import on_released
from evenkeel.services.monitor.service import service
from tests.harness import Harness
from tests.makers import champion_changed, label_accepted, prediction_made, run_completed, vector_computed

START = "2026-01-01T00:00:00Z"
START_US = parse_us(START)
VIEW = "view-1"
MODEL, STREAM = "churn", "visits"
FEATURES: tuple[str, ...] = ("steady", "season")


def stream_spec() -> StreamSpec:
    return StreamSpec.model_validate(
        {
            "topic": "visits.raw",
            "id": "visit_id",
            "time": "at",
            "fields": {"amount": {"type": "number"}},
            "label": {
                "topic": "visits.paid",
                "id": "visit_id",
                "joins": "visit_id",
                "time": "paid_at",
                "horizon": "2d",
                "fields": {"late": {"type": "number"}},
            },
        }
    )


def model_spec(**monitoring: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "task": "binary",
            "stream": STREAM,
            "label": "late > 0",
            "features": [{"fields": ["amount"]}],
            "monitoring": {"windows": ["24h", "7d"], "min_samples": 100, "cooldown": "14d"} | monitoring,
        }
    )


def declared(**monitoring: Any) -> ModelDeclared:
    return ModelDeclared.of(
        name=MODEL, spec=model_spec(**monitoring), streams={STREAM: stream_spec()}, view_version=VIEW
    )


def package(data_dir: Path, rows: np.ndarray[Any, Any], run_id: str = "run-1") -> PackageRef:
    """A real, signed package whose profile is of these rows."""
    manifest = ManifestCore(
        model=MODEL,
        task="binary",
        run_id=run_id,
        created=START,
        stream=STREAM,
        label="late > 0",
        declaration=0,
        features=FeatureSchema(view_version=VIEW, names=FEATURES),
        estimator="logistic",
        parameters={},
        threshold=0.5,
        onnx=ModelFile(input="rows", output="scores", column=1),
        linear=False,
        dataset=DatasetRecord(
            uri="tables/churn",
            version=0,
            rows=len(rows),
            first_event_time=START,
            last_event_time=START,
            label_cut=START,
            offsets={},
            content_sha256="0" * 64,
        ),
        split=Split(
            training_rows=len(rows),
            training_label_cut=START,
            evaluation_rows=1000,
            evaluation_from=START,
            evaluation_until=START,
        ),
        code_commit="none",
        seed=1,
        threads=1,
        versions={},
    )
    golden = GoldenRows(tolerance=1e-5, rows=((0.0, 0.0),), expected=(0.5,))
    contents = PackageContents(manifest, b"onnx", golden, build_profile(FEATURES, rows), {})
    return write_package(data_dir / "artifacts", contents, signing_key(data_dir / "keys", "trainer"), signed_at=START)


def run(ref: PackageRef, auc: float | None = 0.85, run_id: str = "run-1") -> RunCompleted:
    scores = {"metrics": {"roc_auc": auc}}
    about: dict[str, Any] = {"model": MODEL, "run_id": run_id, "view_version": VIEW, "threshold": 0.5}
    return run_completed(ref, training_rows=5000, evaluation_rows=2000, candidate=scores, **about)


def champion(ref: PackageRef, epoch: int = 1, version: int = 1, run_id: str = "run-1") -> ChampionChanged:
    return champion_changed(ref, model=MODEL, epoch=epoch, version=version, view_version=VIEW, run_id=run_id)


def event(
    payload: Payload, event_id: str, time_us: int, topic: str, offset: int = 0, *, stream: str = "", order: int = 0
) -> Event[Any]:
    attributes = {"ce_stream": stream.encode()}
    if order:
        attributes["ce_ordertime"] = format_us(order).encode()
    return Event(payload, event_id, time_us, topic, 0, offset, attributes)


def vector(number: int, time_us: int, values: Sequence[float | None], **more: Any) -> Event[Any]:
    payload = vector_computed(
        model=MODEL,
        stream=STREAM,
        event_id=f"e{number}",
        view_version=more.get("view_version", VIEW),
        declaration=more.get("declaration", 0),
        values=list(values),
    )
    return event(
        payload, f"v{number}", time_us, "feature.vector-computed.v1", stream=view_stream(MODEL, payload.view_version)
    )


def prediction(number: int, time_us: int, score: float, **more: Any) -> Event[Any]:
    epoch = more.get("epoch", 1)
    payload = prediction_made(
        model=MODEL,
        stream=STREAM,
        event_id=more.get("event_id", f"e{number}"),
        version=more.get("version", epoch),
        epoch=epoch,
        package="sha256:" + "0" * 64,
        origin=more.get("origin", "stream"),
        role=more.get("role", "champion"),
        score=score,
        decision=score >= 0.5,
        view_version=VIEW,
    )
    return event(
        payload, f"p{number}", time_us, "serving.prediction-made.v1", stream=view_stream(MODEL, payload.view_version)
    )


def label(number: int, time_us: int, late: float | None, **more: Any) -> Event[Any]:
    payload = label_accepted(
        stream=STREAM, event_id=more.get("event_id", f"e{number}"), label_id=f"l{number}", fields={"late": late}
    )
    return event(
        payload,
        f"l{number}",
        time_us,
        "ingest.label-accepted.v1",
        stream=f"{STREAM}#label",
        order=more.get("order", 0),
    )


def in_order(events: Iterable[Event[Any]]) -> list[Event[Any]]:
    """As the merge releases them."""
    return sorted(events, key=lambda e: (e.order_us, e.stream, e.id))


class Monitor(Harness[MonitorContext]):
    """The service in a data folder. `restart` forgets all memory."""

    def __init__(self, data_dir: Path, database_url: str | None = None) -> None:
        super().__init__(service, data_dir, database_url=database_url)

    def declare(self, spec: ModelDeclared | None = None) -> None:
        self.hear(spec or declared(), START)

    def promote(self, ref: PackageRef, epoch: int = 1, *, auc: float | None = 0.85, run_id: str = "run-1") -> None:
        self.hear(run(ref, auc, run_id), START)
        self.hear(champion(ref, epoch, epoch, run_id), START)

    def release(self, events: Sequence[Event[Any]], watermark_us: int) -> list[Derived]:
        """What follows from what a merge has put in order."""
        (group,) = self.context.merge_groups()
        released = Released(events, watermark_us, group)
        outputs = self.reply(lambda ctx: Reply(None, list(on_released(released, ctx)))).outputs
        return [output for output in outputs if isinstance(output, Derived)]


def day(number: float) -> int:
    return START_US + int(number * DAY_US)


def told(outputs: Iterable[Derived], payload: type[Payload]) -> list[Any]:
    return [output.payload for output in outputs if isinstance(output.payload, payload)]


def traffic(
    days: range,
    *,
    per_day: int = 200,
    epoch: int = 1,
    seed: int = 7,
    skill: float = 2.0,
    season: float = 0.0,
    noise: float = 0.0,
    labelled: bool = True,
) -> list[Event[Any]]:
    """Days of a stream: `skill` separates the scores of the classes, `season` moves a feature, `noise` worsens errors."""
    events: list[Event[Any]] = []
    for number in days:
        random = np.random.default_rng([seed, number])
        late = random.random(per_day) < 0.4
        logit = skill * (late - 0.4) + random.normal(size=per_day)
        score = 1 / (1 + np.exp(-logit))
        score = np.where(random.random(per_day) < noise, 1 - score, score)
        times = np.sort(random.integers(0, DAY_US, per_day))
        values = random.normal((0.0, season), size=(per_day, 2))
        for i in range(per_day):
            at, one = day(number) + int(times[i]), number * 100_000 + i
            events += [vector(one, at, values[i].tolist()), prediction(one, at, float(score[i]), epoch=epoch)]
            if labelled:
                events.append(label(one, at + 3_600_000_000 * (1 + i % 5), 1.0 if late[i] else -1.0))
    return in_order(events)


def steady_rows(n: int = 20_000) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(size=(n, 2))


def policy(**monitoring: Any) -> MonitoringPolicy:
    return model_spec(**monitoring).monitoring
