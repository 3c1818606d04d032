"""The training process: a Delta table and a request in, a package and a result out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import ColumnProperties, DeltaTable, WriterProperties, write_deltalake

from evenkeel.libs.clock import DAY_US, format_us
from evenkeel.libs.keys import verification_keys
from evenkeel.libs.packages.package import read_package
from evenkeel.libs.packages.scorer import Scorer
from evenkeel.services.trainer.domain.job import Candidate, DatasetClaim, JobRequest, JobResult, Refused
from evenkeel.services.trainer.training_run import run, versions
from evenkeel.services.trainer.training_table import read_table
from tests.tiny_packages import FEATURES, START_US, TrainingTable, table_of, tiny_request, tiny_table

ROOT = Path(__file__).parents[3]


class _Clock:
    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us


def _arrow(table: TrainingTable, rows: np.ndarray) -> pa.Table:
    """In the order of labels' arrival, missing values as null."""
    columns = {name: pa.array(table.rows[rows, j].astype(float), from_pandas=True) for j, name in enumerate(FEATURES)}
    return pa.table(
        {
            "event_id": [f"flight-{row}" for row in rows],
            "event_time": table.event_time_us[rows],
            "label_time": table.label_time_us[rows],
            "label": table.label[rows],
            **columns,
        }
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in two versions: the second adds rows, shuffled, among them a week after the first one's end."""
    folder, table = tmp_path_factory.mktemp("home"), tiny_table()
    old = np.arange(800)
    write_deltalake(folder / "table", _arrow(table, old))
    new = np.random.default_rng(0).permutation(np.arange(800, 1200))
    write_deltalake(folder / "table", _arrow(table, new), mode="append")
    return folder


def _request(home: Path, version: int = 1, champion: str | None = None, **changes: object) -> JobRequest:
    table = tiny_table()
    training = tiny_request(table)
    dataset = training.dataset.model_copy(update={"version": version, **changes})
    return JobRequest(
        training=training.model_copy(update={"dataset": dataset}),
        table=str(home / "table"),
        artifacts=str(home / "artifacts"),
        keys=str(home / "keys"),
        champion=champion,
    )


def _process(arguments: list[str], line: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evenkeel.services.trainer.training_process", *arguments]
    return subprocess.run(command, cwd=ROOT, input=line, capture_output=True, text=True, check=False)


def test_table_is_read_in_event_order_up_to_the_cut(home: Path) -> None:
    expected = tiny_table()
    found = read_table(home / "table", 1, FEATURES, START_US + 100 * DAY_US)
    assert np.array_equal(found.event_time_us, expected.event_time_us)
    assert np.array_equal(found.label_time_us, expected.label_time_us)
    assert np.array_equal(found.label, expected.label)
    assert np.array_equal(found.rows, expected.rows, equal_nan=True)
    cut = int(expected.label_time_us[500])
    part = read_table(home / "table", 1, FEATURES, cut)
    assert len(part.label) == 500
    assert part.content_sha256 != found.content_sha256
    assert len(read_table(home / "table", 0, FEATURES, START_US + 100 * DAY_US).label) == 800


def test_the_same_rows_have_the_same_digest_however_they_were_written(tmp_path: Path) -> None:
    """Forty-eight events at each time: their ids decide the order."""
    table = tiny_table()
    together = table_of(table.event_time_us // DAY_US * DAY_US, table.label_time_us, table.label, table.rows)
    digests = set()
    for name, rows in (("up", np.arange(1200)), ("down", np.arange(1200)[::-1])):
        write_deltalake(tmp_path / name, _arrow(together, rows))
        digests.add(read_table(tmp_path / name, 0, FEATURES, START_US + 100 * DAY_US).content_sha256)
    assert len(digests) == 1


def test_files_without_statistics_are_read_whole(tmp_path: Path) -> None:
    """Handed to the dataset, the filter by label time would drop such files without a word."""
    table = tiny_table()
    plain = WriterProperties(default_column_properties=ColumnProperties(statistics_enabled="NONE"))
    write_deltalake(tmp_path / "table", _arrow(table, np.arange(1200)), writer_properties=plain)
    assert len(read_table(tmp_path / "table", 0, FEATURES, int(table.label_time_us[700])).label) == 700


def test_tables_that_are_not_as_asked_are_refused(home: Path, tmp_path: Path) -> None:
    for folder, version, features, message in (
        (tmp_path / "nothing", 0, FEATURES, "no training table in nothing"),
        (home / "table", 9, FEATURES, "version 9 of table"),
        (home / "table", 0, ("hour", "altitude"), "no column altitude"),
    ):
        with pytest.raises(Refused, match=message):
            read_table(folder, version, features, START_US)


def test_a_version_that_is_no_longer_kept_is_refused(tmp_path: Path) -> None:
    table = tiny_table()
    for _ in range(2):
        write_deltalake(tmp_path / "table", _arrow(table, np.arange(1200)), mode="overwrite")
    DeltaTable(tmp_path / "table").vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert len(read_table(tmp_path / "table", 1, FEATURES, START_US + 100 * DAY_US).label) == 1200
    with pytest.raises(Refused, match="version 0 of table is no longer kept .*EVENKEEL_FEATURE_TABLE_DAYS"):
        read_table(tmp_path / "table", 0, FEATURES, START_US + 100 * DAY_US)
    DeltaTable(tmp_path / "table").create_checkpoint()
    (tmp_path / "table" / "_delta_log" / "00000000000000000000.json").unlink()
    with pytest.raises(Refused, match="version 0 of table is no longer kept"):
        read_table(tmp_path / "table", 0, FEATURES, START_US + 100 * DAY_US)


def test_two_processes_make_the_same_package(home: Path) -> None:
    """At other times, through either door, and against a champion that is in the folder."""
    champion = run(
        _request(home, 0, label_cut=format_us(START_US + 15 * DAY_US)), _Clock(START_US), lambda: 0.0
    ).package
    digests = []
    for number, door in enumerate(("arguments", "standby")):
        request_path, result_path = home / f"request-{number}.json", home / f"result-{number}.json"
        request_path.write_text(_request(home, champion=champion).model_dump_json())
        paths = [str(request_path), str(result_path)]
        if door == "arguments":
            done = _process(paths)
        else:
            (home / "artifacts").rename(home / "first")
            (home / "artifacts" / "sha256").mkdir(parents=True)
            assert champion is not None
            hexadecimal = champion.removeprefix("sha256:")
            (home / "first" / "sha256" / hexadecimal).rename(home / "artifacts" / "sha256" / hexadecimal)
            done = _process(["--standby"], json.dumps(paths) + "\n")
        assert (done.returncode, done.stderr) == (0, "")
        result = JobResult.model_validate_json(result_path.read_bytes())
        assert result.outcome == "completed"
        assert result.evidence is not None
        assert result.evidence.comparison is not None
        assert result.golden_matched
        assert result.dataset_rows == 1200
        digests.append(result.package)
    assert digests[0] == digests[1]
    package = read_package(home / "artifacts", str(digests[0]), verification_keys(home / "keys"))
    assert Scorer(package).check_golden() == result.golden_rows
    assert (home / "artifacts").joinpath(*package.digest.replace("sha256:", "sha256/").split("/")).is_dir()
    assert package.manifest.versions["scikit-learn"]


def test_a_refusal_is_a_result(home: Path, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(_request(home, version=7).model_dump_json())
    done = _process([str(tmp_path / "request.json"), str(tmp_path / "result.json")])
    result = JobResult.model_validate_json((tmp_path / "result.json").read_bytes())
    assert (done.returncode, result.outcome, result.reason, result.package) == (0, "refused", "error", None)
    assert "version 7" in result.detail


def test_a_champion_that_was_tampered_with_stops_the_run(home: Path) -> None:
    result = run(_request(home, champion="sha256:" + "0" * 64), _Clock(START_US), lambda: 0.0)
    assert (result.outcome, result.reason) == ("refused", "error")
    assert "there is no package" in result.detail


def test_unreadable_requests_and_an_idle_standby_end_cleanly(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text("{}")
    done = _process([str(tmp_path / "request.json"), str(tmp_path / "result.json")])
    assert done.returncode == 2
    assert "training" in done.stderr
    assert not (tmp_path / "result.json").exists()
    assert _process(["--standby"]).returncode == 0
    assert "usage" in _process([]).stderr


def test_training_imports_no_pandas() -> None:
    """It is there in this environment, and would cost each job a second."""
    program = (
        "import sys; from evenkeel.services.trainer import training_process; training_process.main(['--standby']);"
        "print('pandas' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, input="", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False True"


def test_dataset_claim_is_recorded(home: Path) -> None:
    result = run(_request(home), _Clock(START_US), lambda: 0.0)
    package = read_package(home / "artifacts", str(result.package), verification_keys(home / "keys"))
    claim = DatasetClaim(**package.manifest.dataset.model_dump(include={"uri", "version", "label_cut", "offsets"}))
    assert claim == _request(home).training.dataset


def test_the_libraries_of_the_estimators_that_were_tried_are_recorded() -> None:
    always = {"python", "onnxruntime", "deltalake", "pyarrow"}
    linear, trees = Candidate(estimator="logistic"), Candidate(estimator="hist_gradient_boosting")
    assert set(versions([linear])) == always | {"numpy", "scipy", "scikit-learn", "onnx"}
    assert set(versions([linear, trees])) - set(versions([linear])) == {"skl2onnx"}
