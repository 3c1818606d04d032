"""A declaration of a newer release: who cannot compute it leaves out that one model, goes on with all others, and takes it up
once he can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from evenkeel.contracts.declaration import Declaration
from evenkeel.contracts.feature import VectorComputed, ViewStarted
from evenkeel.contracts.http.registry import Applied
from evenkeel.contracts.ids import view_stream
from evenkeel.contracts.ingest import LabelAccepted
from evenkeel.contracts.monitor import DriftDetected
from evenkeel.contracts.registry import ModelDeclared, StreamDeclared
from evenkeel.contracts.serving import PredictionMade
from evenkeel.contracts.trainer import RetrainDecided
from evenkeel.libs.errors import Refused
from evenkeel.libs.service import Cause, Derived, Reply, Watermark
from evenkeel.services.feature.handlers import on_tick
from evenkeel.services.ingest.service import service as ingest
from evenkeel.services.monitor.service import service as monitor
from evenkeel.services.registry.commands import Apply, on_apply
from evenkeel.services.registry.service import service as registry
from evenkeel.services.serving.service import service as serving
from evenkeel.services.trainer.service import service as trainer
from tests.feature_log import HOUR_US, START_US, Feature, Log
from tests.harness import CALLER, Harness
from tests.makers import vector_computed

TIME: Final = "2013-01-01T00:00:00Z"
Newer = Callable[[dict[str, Any]], object]


def embedding(spec: dict[str, Any]) -> None:
    spec["features"].append({"embed": ["origin"], "dimensions": 8})


def distinct(spec: dict[str, Any]) -> None:
    spec["features"].append({"of": "flights", "by": ["origin"], "compute": ["distinct"], "over": ["1h"]})


def fortnight(spec: dict[str, Any]) -> None:
    spec["retraining"]["cooldown"] = "2w"


def ranking(spec: dict[str, Any]) -> None:
    spec["task"] = "ranking"


def pinball(spec: dict[str, Any]) -> None:
    spec["metric"] = "pinball"


def forest(spec: dict[str, Any]) -> None:
    spec["candidates"] = ["random_forest"]


def of(log: Log, model: str, newer: Newer | None = None, view_version: str | None = None) -> ModelDeclared:
    """A model of the log's declaration, perhaps as a newer release would have declared it."""
    spec, streams = log.declaration.models[model], log.declaration.streams
    declared = ModelDeclared.of(model, spec, {spec.stream: streams[spec.stream], **streams}, "v")
    if newer is None:
        return declared
    written = declared.model_dump(mode="json")
    newer(written["spec"])
    return ModelDeclared.model_validate(written | {"view_version": view_version or "newer"})


@pytest.fixture
def log() -> Log:
    log = Log()
    log.declare(["flights", "weather", "sales"], ["delay", "load"])
    return log


@pytest.fixture
def feature(tmp_path: Path) -> Iterator[Feature]:
    feature = Feature(tmp_path)
    yield feature
    feature.close()


def fly(log: Log, first: int, count: int = 3) -> None:
    for number in range(first, first + count):
        time_us = START_US + number * HOUR_US
        log.event("flights", f"f{number}", time_us, {"origin": "A", "carrier": "x", "load": 0.5})
    log.close(START_US + (first + count) * HOUR_US)


@pytest.mark.parametrize("newer", [embedding, distinct, fortnight])
def test_feature_computes_by_the_former_declaration_and_says_which(log: Log, feature: Feature, newer: Newer) -> None:
    fly(log, 0)
    log.fact("registry", of(log, "delay", newer), TIME)
    log.fact("registry", of(log, "load", embedding), TIME)
    fly(log, 3)
    feature.consume(log.records)
    named = {(e.data.model, e.data.event_id): e.data.declaration for e in feature.events(VectorComputed)}
    assert named == {("delay", f"f{n}"): 0 for n in range(6)} | {("load", f"f{n}"): 1 for n in range(6)}
    assert [one.declaration for one in feature.payloads(ViewStarted)] == [0, 1]


def test_feature_goes_on_without_a_model_that_it_never_could_compute(feature: Feature) -> None:
    log = Log()
    log.declare(["flights", "weather", "sales"], ["load"])
    log.fact("registry", of(log, "delay", distinct), TIME)
    fly(log, 0)
    feature.consume(log.records)
    assert {e.data.model for e in feature.events(VectorComputed)} == {"load"}


def test_feature_takes_up_after_its_start_what_another_release_left_out(log: Log, feature: Feature) -> None:
    """What that release wrote: the declaration is kept, and no view computes by it."""
    fly(log, 0)
    feature.consume(log.records)
    newer = of(log, "delay", lambda spec: spec["features"][1]["compute"].append("max"))
    feature.command(lambda ctx: Reply(ctx.store.put_model(7, newer)))
    feature.restart()
    feature.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")
    feature.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")
    assert [one.declaration for one in feature.payloads(ViewStarted)] == [0, 1, 7], "once"
    read = len(log.records)
    places = [(record.topic, str(record.partition)) for record in log.records]
    for topic, ends in feature.payloads(ViewStarted)[-1].offsets.items():
        assert ends == {partition: places.count((topic, partition)) for partition in ends}
    fly(log, 3)
    feature.consume(log.records[read:])
    vectors = {e.data.event_id: e.data for e in feature.events(VectorComputed) if e.data.model == "delay"}
    assert (vectors["f2"].declaration, vectors["f4"].declaration) == (0, 7)
    assert len(vectors["f4"].values) == len(vectors["f2"].values) + 1


def test_serving_keeps_it_and_knows_all_others(log: Log, tmp_path: Path) -> None:
    one: Harness[Any] = Harness(serving, tmp_path)
    log.fact("registry", of(log, "load", embedding, "v2"), TIME)
    one.consume([record for record in log.records if record.topic == "registry.model-declared.v1"])
    known = {name for name, _ in one.context.plans}
    assert known == {"delay", "load"}
    assert ("load", "v2") not in one.context.plans
    one.restart()
    assert {name for name, _ in one.context.plans} == known
    with one.store.begin() as tx:
        one.context.tx = tx
        assert [declared.offset for declared in one.context.store.models()] == [0, 1, 2]
    one.close()


@pytest.mark.parametrize(
    ("newer", "why"),
    [
        (distinct, "there is no aggregation 'distinct'"),
        (fortnight, "'2w' is not a duration"),
        (ranking, "there is no metric roc_auc of ranking models"),
        (pinball, "there is no metric pinball of binary models"),
        (forest, "there is no estimator random_forest"),
    ],
)
def test_trainer_answers_every_trigger_with_no_and_why(log: Log, tmp_path: Path, newer: Newer, why: str) -> None:
    one: Harness[Any] = Harness(trainer, tmp_path)
    log.fact("registry", of(log, "delay", newer), TIME)
    for model in ("delay", "load"):
        log.fact("monitor", drift(model), "2013-02-01T00:00:00Z")
    one.consume([r for r in log.records if r.topic in ("registry.model-declared.v1", "monitor.drift-detected.v1")])
    decided = {one.model: one for one in one.payloads(RetrainDecided)}
    assert (decided["delay"].retrain, decided["delay"].reason) == (False, "not_computable")
    assert why in decided["delay"].detail
    assert (decided["load"].retrain, decided["load"].reason) == (False, "no_dataset")
    one.close()


def drift(model: str) -> DriftDetected:
    example = {
        "detector": "psi",
        "epoch": 0,
        "version": 0,
        "window_start": TIME,
        "window_end": TIME,
        "effect": 1.0,
    }
    return DriftDetected.model_validate(
        example | {"model": model, "significance": 0.0, "n": 1, "features": [], "detail": ""}
    )


def test_monitor_folds_nothing_of_a_model_whose_vectors_name_it(log: Log, tmp_path: Path) -> None:
    """A newer feature service computes what this monitor cannot measure: the other models of the group go on."""
    one: Harness[Any] = Harness(monitor, tmp_path)
    log.fact("registry", of(log, "delay", pinball), TIME)
    for number in range(3):
        time_us = START_US + number * HOUR_US
        for model, declaration in (("delay", 2 if number else 0), ("load", 1)):
            log.say("feature", [vector(model, declaration, number, time_us)])
    for model in ("delay", "load"):
        for producer, payload in (("feature", VectorComputed), ("serving", PredictionMade)):
            log.say(producer, [Watermark(payload, view_stream(model, "v"), START_US + 3 * HOUR_US)])
    log.say("ingest", [Watermark(LabelAccepted, "flights#label", START_US + 3 * HOUR_US)])
    one.consume([record for record in log.records if record.topic != "registry.stream-declared.v1"])
    assert one.context.unmeasured == {"delay"}
    assert one.context.models["load"].open.vectors == 3
    assert one.context.models["delay"].open is None
    one.close()


def vector(model: str, declaration: int, number: int, time_us: int) -> Derived:
    payload = vector_computed(model=model, stream="flights", event_id=f"f{number}", declaration=declaration)
    cause = Cause(f"{model}-{number}", time_us, "c")
    return Derived(payload, cause, id=f"{model}-{number}", stream=view_stream(model, "v"))


def test_ingest_leaves_the_records_of_a_stream_that_it_cannot_check_where_they_are(tmp_path: Path) -> None:
    log, one = Log(), Harness[Any](ingest, tmp_path)
    log.declare(["flights", "sales"], [])
    one.consume(log.records)
    assert set(one.context.raw_topics()) == {"flights", "arrivals", "sales", "returns"}
    written = log.declaration.streams["sales"].written()
    written["fields"]["amount"]["type"] = "decimal"
    (record,) = log.fact("registry", StreamDeclared(name="sales", spec=written), TIME)
    one.consume([record])
    for _ in range(2):
        assert set(one.context.raw_topics()) == {"flights", "arrivals"}
        assert set(one.context.current) == {"flights"}
        one.restart()
    (record,) = log.fact("registry", StreamDeclared.of("sales", log.declaration.streams["sales"]), TIME)
    one.consume([record])
    assert set(one.context.raw_topics()) == {"flights", "arrivals", "sales", "returns"}
    one.close()


def apply(one: Harness[Any], declaration: Declaration) -> Any:
    return one.command(partial(on_apply, Apply(declaration, CALLER)))


def test_registry_refuses_only_what_would_leave_such_a_model_behind(log: Log, tmp_path: Path) -> None:
    """Its store is a newer release's: that one declared a model that this one cannot compute."""
    one = Harness(registry, tmp_path)
    newer = of(log, "delay", distinct)
    declaration = log.declaration
    apply(one, declaration.model_copy(update={"models": {"load": declaration.models["load"]}}))
    one.ask(lambda ctx: ctx.store.put_model(newer.name, newer.spec, newer.streams, "newer"))
    assert apply(one, declaration.model_copy(update={"models": {}})) == Applied(dry_run=False, streams=[], models=[])
    changed = declaration.streams["weather"].model_copy(update={"wait_us": 1_000_000})
    with pytest.raises(Refused) as refused:
        apply(one, Declaration(streams={"weather": changed}))
    assert (refused.value.status, refused.value.field) == (409, "models.delay")
    assert "there is no aggregation 'distinct'" in str(refused.value)
    one.close()
