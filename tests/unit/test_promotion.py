"""From a fit to the gate that decides: every metric of every task, with a better, an equal and a worse candidate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, assert_never

import pytest

from evenkeel.contracts.declaration import Declaration
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ChampionChanged, GateDecided, ModelDeclared
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.clock import DAY_US, format_us
from evenkeel.libs.keys import signing_key, verification_keys
from evenkeel.libs.metrics import METRICS, Metric
from evenkeel.libs.packages.package import read_package, write_package
from evenkeel.libs.service import Derived
from evenkeel.services.registry.commands import Apply, on_apply
from evenkeel.services.registry.context import RegistryContext
from evenkeel.services.registry.service import service as registry_service
from evenkeel.services.trainer.commands import (
    FinishJob,
    TakeJob,
    Train,
    on_finish_job,
    on_take_job,
    on_train,
)
from evenkeel.services.trainer.context import TrainerContext
from evenkeel.services.trainer.domain.job import JobResult, Task
from evenkeel.services.trainer.domain.split import TrainingTable
from evenkeel.services.trainer.domain.training import train
from evenkeel.services.trainer.service import service as trainer_service
from tests.harness import CALLER, Harness
from tests.makers import dataset_committed
from tests.tiny_packages import FEATURES, START_US, VERSIONS, tiny_table

Knows = Literal["the signal", "the opposite", "what the champion knows"]
UNSEEN_US: Final = 5 * DAY_US
"""Before the cut: a horizon of a day, and four days held out."""
FIRST_DAY: Final = 16
SECOND_DAY: Final = 32
CONFIDENCE_90: Final = 1.2815515655
"""Standard errors between an estimate and its one-sided bound of 90 %."""


def declaration(task: Task) -> Declaration:
    label = {"type": "boolean" if task == "binary" else "number"}
    stream = {
        "topic": "flights",
        "id": "id",
        "time": "at",
        "fields": {name: {"type": "number"} for name in FEATURES},
        "label": {
            "topic": "landings",
            "id": "id",
            "joins": "id",
            "time": "at",
            "horizon": "1d",
            "fields": {"y": label},
        },
    }
    model = {
        "task": task,
        "stream": "flights",
        "label": "y",
        "features": [{"fields": list(FEATURES)}],
        "candidates": ["logistic" if task == "binary" else "linear"],
        "retraining": {"first_after": {"rows": 100, "span": "5d"}, "holdout": "4d", "cooldown": "0s"},
    }
    return Declaration.model_validate({"streams": {"flights": stream}, "models": {"m": model}})


def sent(payload: Payload) -> Any:
    """As a consumer reads it from the topic."""
    return type(payload).model_validate_json(payload.model_dump_json())


def rows_until(table: TrainingTable, cut_us: int, knows: Knows) -> TrainingTable:
    """The rows known by then. Who learns the opposite is evaluated on true labels all the same."""
    known = table.label_time_us < cut_us
    trained = table.event_time_us < cut_us - UNSEEN_US
    label = table.label.copy()
    match knows:
        case "the signal":
            pass
        case "the opposite":
            label[trained] = label.max() - label[trained]
        case "what the champion knows":
            known &= (table.label_time_us < START_US + FIRST_DAY * DAY_US - UNSEEN_US) | ~trained
        case _:
            assert_never(knows)
    return replace(
        table,
        event_time_us=table.event_time_us[known],
        label_time_us=table.label_time_us[known],
        label=label[known],
        rows=table.rows[known],
    )


class House:
    """Trainer and registry on their real stores; what one says is read by the other as it stands on the topic."""

    def __init__(self, folder: Path, task: Task, metric: str) -> None:
        self.folder, self.metric, self.versions = folder, metric, 0
        self.table = tiny_table(1600, seed=1, task=task)
        self.trainer: Harness[TrainerContext] = Harness(trainer_service, folder)
        self.registry: Harness[RegistryContext] = Harness(registry_service, folder)
        reply = self.registry.reply(partial(on_apply, Apply(declaration(task), CALLER)))
        said = [output.payload for output in reply.outputs if isinstance(output, Derived)]
        (self.declared,) = (payload for payload in said if isinstance(payload, ModelDeclared))
        self.trainer.hear(sent(self.declared), format_us(START_US))

    def run(self, day: int, knows: Knows) -> tuple[RunCompleted, list[Payload]]:
        """One fit on the labels of so many days, and what the registry makes of it."""
        cut_us = START_US + day * DAY_US
        table = rows_until(self.table, cut_us, knows)
        self.versions += 1
        committed = dataset_committed(
            version=self.versions,
            view_version=self.declared.view_version,
            declaration=1,
            rows=len(table.label),
            added=len(table.label),
            first_event_time=format_us(int(table.event_time_us[0])),
            last_event_time=format_us(int(table.event_time_us[-1])),
            label_cut=format_us(cut_us),
        )
        if not self.trainer.hear(committed, format_us(cut_us)):
            self.trainer.reply(partial(on_train, Train("m", CALLER)))
        started = self.trainer.reply(partial(on_take_job, TakeJob("me"))).answer
        assert started is not None
        training = started.request.training.model_copy(update={"metric": self.metric})
        artifacts, keys = self.folder / "artifacts", self.folder / "keys"
        champion = started.request.champion
        package = None if champion is None else read_package(artifacts, champion, verification_keys(keys))
        trained = train(training, table, package, VERSIONS, lambda: 0.0)
        ref = write_package(artifacts, trained.contents, signing_key(keys, "trainer"), signed_at=format_us(cut_us))
        result = JobResult(
            outcome="completed",
            run_id=training.run_id,
            package=ref.digest,
            package_uri=ref.uri,
            package_bytes=ref.size_bytes,
            estimator=trained.estimator,
            evidence=trained.evidence,
        )
        reply = self.trainer.reply(partial(on_finish_job, FinishJob(started, result, "", 1.0)))
        (completed,) = (sent(output.payload) for output in reply.outputs if isinstance(output, Derived))
        decided = [sent(payload) for payload in self.registry.hear(completed, format_us(cut_us))]
        for payload in decided:
            if isinstance(payload, ChampionChanged):
                self.trainer.hear(payload, format_us(cut_us))
        return completed, decided

    def close(self) -> None:
        self.trainer.close()
        self.registry.close()


@pytest.fixture
def house(tmp_path: Path, metric: Metric, task: Task) -> Iterator[House]:
    house = House(tmp_path, task, metric.name)
    yield house
    house.close()


@pytest.mark.parametrize("candidate", ["better", "equal", "worse"])
@pytest.mark.parametrize(
    ("metric", "task"), [pytest.param(m, task, id=f"{m.name}-{task}") for m in METRICS for task in m.tasks]
)
def test_the_better_model_answers(house: House, metric: Metric, candidate: Literal["better", "equal", "worse"]) -> None:
    knowledge: dict[str, tuple[Knows, Knows]] = {
        "better": ("the opposite", "the signal"),
        "equal": ("the signal", "what the champion knows"),
        "worse": ("the signal", "the opposite"),
    }
    first, second = knowledge[candidate]
    _, decided = house.run(FIRST_DAY, first)
    assert [payload.version for payload in decided if isinstance(payload, ChampionChanged)] == [1]
    completed, decided = house.run(SECOND_DAY, second)
    compared = completed.comparison
    assert compared is not None
    assert completed.champion is not None
    ours, theirs = completed.candidate.metrics[house.metric], completed.champion.metrics[house.metric]
    assert (compared.candidate, compared.champion) == (ours, theirs)
    improvement = ours - theirs if metric.higher_is_better else theirs - ours
    bound = improvement - CONFIDENCE_90 * compared.standard_error
    assert (compared.improvement, compared.improvement_lower) == pytest.approx((improvement, bound), rel=1e-9)
    (gate,) = (g for g in decided if isinstance(g, GateDecided) and g.gate == "better_than_champion")
    assert (gate.passed, gate.value) == (candidate == "better", compared.improvement_lower)
    assert (improvement > 0.0, improvement == 0.0) == (candidate == "better", candidate == "equal")
    assert any(isinstance(payload, ChampionChanged) for payload in decided) is (candidate == "better")
