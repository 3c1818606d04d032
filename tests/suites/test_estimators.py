"""What every estimator of the catalogue must show. A row without nonsense to refuse turns the first test red."""

from __future__ import annotations

import ast
import doctest
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from evenkeel.contracts.payload import WORD_PATTERN
from evenkeel.libs.estimators import ESTIMATORS, Estimator, Fitted, UnusableParameters, estimator_named, estimators_of
from evenkeel.libs.metrics import metrics_of
from evenkeel.libs.packages.manifest import Parameter
from evenkeel.services.trainer.domain.export import TOLERANCE, export
from evenkeel.services.trainer.domain.fitting import fit
from evenkeel.services.trainer.domain.job import Candidate, Refused, Task
from tests.tiny_packages import tiny_table

NONSENSE: Final[Mapping[str, dict[str, Parameter]]] = {
    "logistic": {"C": -1.0},
    "linear": {"alpha": -1.0},
    "hist_gradient_boosting": {"learning_rate": 0.0},
}
"""By estimator, a parameter with a value that it must refuse."""
every_estimator: Final = pytest.mark.parametrize("row", ESTIMATORS, ids=lambda row: row.name)
every_fit: Final = pytest.mark.parametrize(
    ("row", "task"), [pytest.param(row, task, id=f"{row.name}-{task}") for row in ESTIMATORS for task in row.tasks]
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a run does; more of them only wait for each other here."""
    for row in ESTIMATORS:
        row.load()
    with threadpool_limits(limits=1):
        yield


def newly_fitted(row: Estimator, task: Task) -> tuple[Fitted, np.ndarray[Any, Any]]:
    """A fit on rows with gaps, a feature that was never seen and one that never varies; and other rows, with gaps where
    there were none."""
    table = tiny_table(1500, task=task)
    rows = table.rows.copy()
    rows[:, 3] = np.nan
    rows[:, 0] = 4.0
    others = tiny_table(500, seed=5).rows
    others[::7, 1] = np.nan
    return fit(Candidate(estimator=row.name), task, rows, table.label, 1), others


@cache
def fitted(name: str, task: Task) -> tuple[Fitted, np.ndarray[Any, Any]]:
    return newly_fitted(estimator_named(name), task)


def python(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_every_estimator_has_nonsense_to_refuse_and_a_name_of_its_own() -> None:
    names = [row.name for row in ESTIMATORS]
    assert len(set(names)) == len(names)
    assert set(NONSENSE) == set(names)
    assert all(re.fullmatch(WORD_PATTERN, name) for name in names)
    assert all(row.tasks for row in ESTIMATORS)


@every_estimator
def test_its_example_holds(row: Estimator) -> None:
    implementation = row.load()
    assert ">>> " in (implementation.fit.__doc__ or "")
    assert doctest.testmod(import_module(f"evenkeel.libs.estimators.{row.name}")).failed == 0


@every_fit
def test_the_same_fit_gives_the_same_bits(row: Estimator, task: Task) -> None:
    (first, rows), (second, _) = fitted(row.name, task), newly_fitted(row, task)
    assert first.parameters == second.parameters
    assert first.predict(rows).tobytes() == second.predict(rows).tobytes()
    ours, theirs = first.to_onnx(rows.shape[1]), second.to_onnx(rows.shape[1])
    assert (ours.content, ours.file) == (theirs.content, theirs.file)


@every_fit
def test_its_graph_answers_as_it_does(row: Estimator, task: Task) -> None:
    model, rows = fitted(row.name, task)
    exported = export(model, task, rows)
    assert exported.parity_difference < TOLERANCE / 5
    answers = exported.served.predict(rows)
    assert answers.shape == (len(rows),)
    assert np.isfinite(answers).all()
    if task == "binary":
        assert ((answers >= 0.0) & (answers <= 1.0)).all()


@every_fit
def test_it_learns(row: Estimator, task: Task) -> None:
    """By the task's first metric it is better than the best constant, on rows that it has not seen."""
    table, unseen = tiny_table(1500, task=task), tiny_table(1000, seed=9, task=task)
    model = fit(Candidate(estimator=row.name), task, table.rows, table.label, 1)
    metric = metrics_of(task)[0]
    constant = np.full(len(unseen.label), float(np.median(table.label)))
    found, trivial = metric.value(unseen.label, model.predict(unseen.rows)), metric.value(unseen.label, constant)
    assert metric.improvement(found, over=trivial) > 0.3 * trivial


@every_fit
def test_every_parameter_is_taken_and_recorded(row: Estimator, task: Task) -> None:
    model, _ = fitted(row.name, task)
    assert set(model.parameters) == set(row.defaults)
    assert all(model.parameters[name] == value for name, value in row.defaults.items() if value is not None)


@every_estimator
def test_it_refuses_nonsense_and_names_it(row: Estimator) -> None:
    table = tiny_table(300, task="binary" if "binary" in row.tasks else "regression")
    task: Task = "binary" if "binary" in row.tasks else "regression"
    with pytest.raises(UnusableParameters, match=f"{row.name} is no estimator of cooking models"):
        row.fit("cooking", {}, table.rows, table.label, 1)
    (name,) = NONSENSE[row.name]
    for parameters, words in ((NONSENSE[row.name], name), ({"depht": 3}, f"{row.name} has no parameter depht")):
        with pytest.raises(UnusableParameters, match=words):
            row.fit(task, parameters, table.rows, table.label, 1)
        with pytest.raises(Refused, match=words) as caught:
            fit(Candidate(estimator=row.name, parameters=parameters), task, table.rows, table.label, 1)
        assert caught.value.reason == "error"


@every_estimator
def test_the_libraries_that_it_imports_are_recorded(row: Estimator) -> None:
    file = Path(import_module(f"evenkeel.libs.estimators.{row.name}").__file__ or "")
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    distributions = metadata.packages_distributions()
    foreign = imported - set(sys.stdlib_module_names) - {"evenkeel"}
    assert {name for package in foreign for name in distributions[package]} <= set(row.libraries)
    assert all(metadata.version(name) for name in row.libraries)


def test_the_catalogue_is_read_without_any_training_library() -> None:
    code = "import json, sys, evenkeel.libs.estimators; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in python(code)}
    assert not loaded & {"sklearn", "scipy", "onnx", "skl2onnx", "onnxruntime", "pandas"}


def test_loading_brings_along_every_library_that_has_threads() -> None:
    """A limit of threads holds for what is loaded when it is set; a library that came later would have its own number, and
    the same run other bits."""
    code = """
import json
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits
from evenkeel.libs.estimators import ESTIMATORS
for row in ESTIMATORS:
    row.load()
before = {one["filepath"] for one in threadpool_info()}
threadpool_limits(limits=1)
rows = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
label = (rows[:, 0] > 0).astype(float)
for row in ESTIMATORS:
    for task in row.tasks:
        row.fit(task, {}, rows, label, 0).to_onnx(2)
print(json.dumps([len(before), sorted({one["filepath"] for one in threadpool_info()} - before)]))
"""
    known, late = python(code)
    assert known > 0
    assert late == []


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no estimator 'forest': it is one of logistic, linear"):
        estimator_named("forest")
    assert estimators_of("cooking") == ()
    assert {"linear", "hist_gradient_boosting"} <= {row.name for row in estimators_of("regression")}
    assert "logistic" not in {row.name for row in estimators_of("regression")}
