"""Tiny real model packages: trained, exported and signed by the product's own code on a few hundred made-up rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from evenkeel.libs.clock import DAY_US, HOUR_US, format_us, parse_us
from evenkeel.libs.keys import signing_key
from evenkeel.libs.packages.package import Package, PackageRef, write_package
from evenkeel.services.trainer.domain.job import Candidate, DatasetClaim, Task, TrainingRequest
from evenkeel.services.trainer.domain.split import TrainingTable
from evenkeel.services.trainer.domain.training import TrainingResult, train

START_US = parse_us("2013-01-01T00:00:00Z")
FEATURES = ("hour", "delay", "weather", "code")
VERSIONS = {"python": "3"}


def tiny_table(n: int = 1200, seed: int = 0, task: Task = "binary", drift: float = 0.0) -> TrainingTable:
    """One event every half hour, its label three hours later; a quarter of `weather` is missing, and tellingly so."""
    generator = np.random.default_rng(seed)
    event_time = START_US + np.arange(n, dtype=np.int64) * HOUR_US // 2
    delay, weather = generator.normal(0, 10, n), generator.normal(size=n)
    rows = np.column_stack([np.arange(n) // 2 % 24, delay, weather, generator.integers(0, 5, n)]).astype(np.float32)
    gap = generator.random(n) < 0.25
    rows[gap, 2] = np.nan
    signal = 0.2 * delay * (1 - drift) + np.where(gap, 1.5, weather) + 0.1 * rows[:, 0] - 1.5
    noise = generator.logistic(size=n)
    label = (signal + noise > 0).astype(float) if task == "binary" else 10 * signal + noise
    label_time = event_time + 3 * HOUR_US
    return table_of(event_time, label_time, label, rows)


def table_of(
    event_time: np.ndarray[Any, Any],
    label_time: np.ndarray[Any, Any],
    label: np.ndarray[Any, Any],
    rows: np.ndarray[Any, Any],
) -> TrainingTable:
    digest = hashlib.sha256(b"".join(part.tobytes() for part in (event_time, label_time, label, rows))).hexdigest()
    return TrainingTable(event_time, label_time, label, rows, digest)


def tiny_request(
    table: TrainingTable, estimator: str = "logistic", task: Task = "binary", **changes: Any
) -> TrainingRequest:
    """Everything up to a day after the last event, of which the last five days but one are held out."""
    cut = format_us(int(table.event_time_us[-1]) + DAY_US)
    fields: dict[str, Any] = {
        "model": "late",
        "task": task,
        "run_id": "run-1",
        "stream": "flights",
        "label": "delay > 15",
        "declaration": 3,
        "view_version": "sha256:view",
        "features": FEATURES,
        "candidates": (Candidate(estimator=estimator),),
        "metric": "roc_auc" if task == "binary" else "mae",
        "as_of": cut,
        "label_horizon_us": DAY_US,
        "holdout_us": 4 * DAY_US,
        "seed": 7,
        "dataset": DatasetClaim(uri="tables/late", version=4, label_cut=cut, offsets={"feature.vector": {"0": 9}}),
        "code_commit": "0" * 40,
    }
    return TrainingRequest(**{**fields, **changes})


def tiny_training(
    estimator: str = "logistic",
    task: Task = "binary",
    *,
    table: TrainingTable | None = None,
    champion: Package | None = None,
    **changes: Any,
) -> TrainingResult:
    data = tiny_table(task=task) if table is None else table
    return train(tiny_request(data, estimator, task, **changes), data, champion, VERSIONS, lambda: 0.0)


def tiny_package(
    artifacts: Path, keys: Path, estimator: str = "logistic", task: Task = "binary", **changes: Any
) -> PackageRef:
    """Train, write and sign one; the key folder gets a `trainer` key if it has none."""
    result = tiny_training(estimator, task, **changes)
    return write_package(artifacts, result.contents, signing_key(keys, "trainer"), signed_at="2026-01-01T00:00:00Z")
