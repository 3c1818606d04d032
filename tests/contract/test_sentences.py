"""What facts say of themselves, word for word: over every committed example, and where it depends on what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts.payload import Caller, Fact
from evenkeel.contracts.runtime import IN_BAND
from evenkeel.contracts.topics import BY_NAME
from tests.makers import comparison

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(
    f"{path.parent.name}/{path.stem}"
    for path in (ROOT / "contracts" / "examples").glob("*/*.json")
    if path.parent.name not in IN_BAND
)
ADA = Caller(name="token:9f86d081884c", role="operator")


def read(example: str) -> tuple[Fact, str]:
    """A committed example, and the sentence that stands in it."""
    path = ROOT / "contracts" / "examples" / f"{example}.json"
    found = json.loads(path.read_text())
    return BY_NAME[path.parent.name].payload.model_validate(found["value"]), found["sentence"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_says_the_sentence_that_stands_in_it(example: str) -> None:
    """Word for word, to be read by whoever changes it."""
    fact, sentence = read(example)
    assert fact.sentence() == sentence
    assert sentence == sentence.strip() and "\n" not in sentence
    assert "None" not in sentence and "  " not in sentence and "[" not in sentence, "people read this"


DECIDED = "trainer.retrain-decided.v1/yes-accepted"
CHAMPION = "registry.champion-changed.v1/first"
RUN = "trainer.run-completed.v1/first"


@pytest.mark.parametrize(
    ("example", "changes", "said"),
    [
        (
            DECIDED,
            {"retrain": False, "trigger": "drift", "reason": "cooldown", "detail": "3 days are left", "run_id": None},
            "no run was decided although the inputs had drifted (cooldown): 3 days are left",
        ),
        (
            DECIDED,
            {"trigger": "full-moon", "detail": "as always", "run_id": "r-1"},
            "run r-1 was decided because the trigger full-moon asked: as always",
        ),
        (
            CHAMPION,
            {"epoch": 7, "version": 3, "cause": "approval", "previous_version": 2, "caller": ADA},
            "version 3 became champion of flight-delay (epoch 7) by approval, commanded by token:9f86d081884c (operator), "
            "in place of version 2",
        ),
        (
            CHAMPION,
            {"epoch": 8, "version": 2, "cause": "rollback", "previous_version": 3, "quarantined": 3, "reason": "worse"},
            "version 2 became champion of flight-delay (epoch 8) by rollback in place of version 3; version 3 is "
            "quarantined: worse",
        ),
        (
            CHAMPION,
            {"epoch": 2, "version": 2, "effective_from": "2013-02-01T06:00:00Z"},
            "version 2 became champion of flight-delay (epoch 2) by promotion, on the stream from 2013-02-01 06:00 UTC on",
        ),
        (
            "trainer.loop-changed.v1/first",
            {"state": "running", "caller": None, "reason": "thaw"},
            "Ada resumed the loop of flight-delay: thaw",
        ),
        (
            "trainer.loop-changed.v1/first",
            {"state": "dimmed", "by": "", "caller": None, "reason": "dusk"},
            "somebody set the loop of flight-delay to dimmed: dusk",
        ),
        (
            "serving.prediction-made.v1/stream",
            {"score": 1.25, "decision": None, "role": "shadow", "event_id": "e 1/2?"},
            "version 1 of flight-delay (epoch 1, shadow) scored 1.2500 for event e 1/2?, on the stream",
        ),
        (
            "serving.prediction-made.v1/request",
            {"score": 0.5, "decision": "diverted", "event_id": "e1", "origin": "batch"},
            "version 1 of flight-delay (epoch 1, champion) scored 0.5000 for event e1, decided diverted, asked by batch",
        ),
        (
            "serving.replica-seen.v1/first",
            {"state": "stopping", "epochs": {"b": 2, "a": 1}, "replica": "r1", "url": "http://r1:8305"},
            "replica r1 at http://r1:8305 is stopping, serving a epoch 1 and b epoch 2",
        ),
        (
            "monitor.window-measured.v1/first",
            {
                "version": 2,
                "labelled": 500,
                "predictions": 1200,
                "vectors": 1,
                "metrics": {"roc_auc": 0.75, "brier": None},
            },
            "2013-01-01 to 2013-01-02 under version 2: 1 vector, 1,200 predictions, 500 of them labelled, roc_auc 0.7500",
        ),
        (
            "ingest.label-accepted.v1/first",
            {"label_id": "l1", "event_id": "e1", "late": True},
            "label l1 of event e1 of stream flights passed its contract, declaration 0, late",
        ),
        (
            "feature.view-started.v1/first",
            {"offsets": {"ingest.event-accepted.v1": {"0": 1200}}, "declaration": 4},
            "view a3e287f1457d of model flight-delay is computed after ingest.event-accepted.v1/0 below 1,200, declaration 4",
        ),
    ],
)
def test_a_sentence_says_what_is_there(example: str, changes: dict[str, Any], said: str) -> None:
    assert read(example)[0].model_copy(update=changes).sentence() == said


@pytest.mark.parametrize(
    ("candidate", "champion", "improvement", "lower", "said"),
    [
        (0.76, 0.74, 0.02, 0.01, "better by 0.0200 (the improvement exceeds +0.0100 with 90% confidence)"),
        (1.5, 1.25, -0.25, -0.5, "worse by 0.2500 (the improvement exceeds -0.5000 with 90% confidence)"),
    ],
)
def test_a_run_says_how_much_better_it_is(
    candidate: float, champion: float, improvement: float, lower: float, said: str
) -> None:
    """Oriented as the evidence is: whichever way the metric points, better is better."""
    compared = comparison(
        metric="rmse",
        n=1900,
        candidate=candidate,
        champion=champion,
        improvement=improvement,
        improvement_lower=lower,
        improvement_upper=0.5,
    )
    sentence = read(RUN)[0].model_copy(update={"comparison": compared}).sentence()
    assert (
        f"; rmse {candidate:.4f} against the champion's {champion:.4f} on the same 1,900 unseen rows, {said};"
        in sentence
    )
