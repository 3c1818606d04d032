"""Scorers answer as the trained model did, and load nothing but the package's own bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evenkeel.libs.estimators import ESTIMATORS
from evenkeel.libs.keys import signing_key, verification_keys
from evenkeel.libs.packages import errors
from evenkeel.libs.packages.manifest import ModelFile
from evenkeel.libs.packages.package import Package, PackageContents, read_package, refuse_external_data, write_package
from evenkeel.libs.packages.scorer import LinearModel, OnnxModel, Scorer
from evenkeel.services.trainer.domain.job import Task
from tests.tiny_packages import tiny_table, tiny_training

KINDS = [(estimator.name, task) for estimator in ESTIMATORS for task in estimator.tasks]


def _written(tmp_path: Path, contents: PackageContents) -> Package:
    key = signing_key(tmp_path / "keys", "trainer")
    ref = write_package(tmp_path / "artifacts", contents, key, signed_at="2026-01-01T00:00:00Z")
    return read_package(tmp_path / "artifacts", ref.digest, verification_keys(tmp_path / "keys"))


@pytest.mark.parametrize(("estimator", "task"), KINDS)
def test_scorer_answers_its_golden_rows(tmp_path: Path, estimator: str, task: Task) -> None:
    package = _written(tmp_path, tiny_training(estimator, task).contents)
    scorer = Scorer(package)
    assert scorer.check_golden() == len(package.golden.rows) == 16
    assert any(None in row for row in package.golden.rows)
    answers = scorer.predict(tiny_table(50, seed=9).rows)
    assert answers.dtype == np.float64
    assert answers.shape == (50,)


@pytest.mark.parametrize(("estimator", "task"), KINDS)
def test_an_answer_depends_on_its_row_alone(tmp_path: Path, estimator: str, task: Task) -> None:
    scorer = Scorer(_written(tmp_path, tiny_training(estimator, task).contents))
    rows = tiny_table(700, seed=9).rows
    together = scorer.predict(rows)
    alone = np.concatenate([scorer.predict(rows[index : index + 1]) for index in range(len(rows))])
    thirds = np.concatenate([scorer.predict(part) for part in np.array_split(rows[::-1], 3)])[::-1]
    assert together.tobytes() == alone.tobytes() == np.ascontiguousarray(thirds).tobytes()


@pytest.mark.parametrize("estimator", ["logistic", "linear"])
def test_coefficients_and_graph_are_the_same_model(tmp_path: Path, estimator: str) -> None:
    package = _written(
        tmp_path, tiny_training(estimator, "binary" if estimator == "logistic" else "regression").contents
    )
    assert package.linear is not None
    rows = tiny_table(500, seed=9).rows
    graph = OnnxModel(package.model_onnx, package.manifest.onnx, rows.shape[1])
    assert np.abs(graph.predict(rows) - LinearModel(package.linear).predict(rows)).max() < 1e-12


def test_extreme_rows_get_probabilities() -> None:
    linear = tiny_training().contents.linear
    assert linear is not None
    rows = np.array([[1e30] * 4, [-1e30] * 4, [np.nan] * 4], dtype=np.float32)
    answers = LinearModel(linear).predict(rows)
    assert np.isfinite(answers).all()
    assert ((answers >= 0) & (answers <= 1)).all()


@pytest.mark.parametrize(("estimator", "task"), KINDS)
def test_another_answer_than_the_golden_one_is_refused(tmp_path: Path, estimator: str, task: Task) -> None:
    contents = tiny_training(estimator, task).contents
    expected = list(contents.golden.expected)
    expected[3] += 3e-5 * max(1.0, abs(expected[3]))
    golden = contents.golden.model_copy(update={"expected": tuple(expected)})
    with pytest.raises(errors.GoldenMismatch, match="golden row 3") as caught:
        Scorer(_written(tmp_path, replace(contents, golden=golden))).check_golden()
    assert caught.value.reason == "golden_rows"


def test_golden_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    contents = tiny_training().contents
    golden = contents.golden.model_copy(update={"rows": tuple(row[:-1] for row in contents.golden.rows)})
    with pytest.raises(errors.ManifestInvalid, match="4 features"):
        Scorer(_written(tmp_path, replace(contents, golden=golden)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "x"}, "not x"),
        ({"output": "nothing"}, "no output nothing"),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says_is_refused(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    contents = tiny_training("hist_gradient_boosting").contents
    file = ModelFile(**{**contents.manifest.onnx.model_dump(), **changes})
    manifest = contents.manifest.model_copy(update={"onnx": file})
    with pytest.raises(errors.ModelUnloadable, match=message):
        Scorer(_written(tmp_path, replace(contents, manifest=manifest)))


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    contents = replace(tiny_training("hist_gradient_boosting").contents, model_onnx=b"not a model")
    with pytest.raises(errors.ModelUnloadable, match="cannot load"):
        Scorer(_written(tmp_path, contents))


def _external(tmp_path: Path, place: str) -> bytes:
    """A model whose tensor lives in another file: as initializer, in a node's attribute, or inside a subgraph."""
    tensor = numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, location="w.bin")
    tensor.ClearField("raw_data")
    (tmp_path / "w.bin").write_bytes(np.arange(64, dtype=np.float32).tobytes())
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    if place == "initializer":
        graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [tensor])
    elif place == "attribute":
        graph = helper.make_graph([constant], "g", [], [output])
    else:
        branch = helper.make_graph([constant], "b", [], [output])
        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        graph = helper.make_graph([node], "g", [condition], [output])
    return helper.make_model(graph, ir_version=10).SerializeToString()


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph"])
def test_models_with_data_in_other_files_are_refused(tmp_path: Path, place: str) -> None:
    external = _external(tmp_path, place)
    with pytest.raises(errors.ExternalDataRefused, match="outside the package"):
        refuse_external_data(external)
    with pytest.raises(errors.ExternalDataRefused):
        _written(tmp_path, replace(tiny_training().contents, model_onnx=external))
    assert [path.name for path in tmp_path.iterdir() if path.name == "artifacts"] == []


def _in_process(program: str, home: Path) -> str:
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_scoring_needs_no_training_library_and_writes_nothing_into_the_home_folder(tmp_path: Path) -> None:
    """onnxruntime's telemetry would leave a device id in ~/.cache, and upload it."""
    program = (
        "import sys, evenkeel.libs.packages.scorer\n"
        "print([name for name in ('sklearn', 'skl2onnx', 'onnx', 'pandas', 'pyarrow', 'sqlalchemy', 'scipy')"
        " if name in sys.modules], 'onnxruntime' in sys.modules)"
    )
    assert _in_process(program, tmp_path) == "[] True"
    assert list(tmp_path.rglob("*")) == []
