"""A training job with its inputs and outputs: table and champion in, package and result out."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pyarrow as pa

from evenkeel.libs.clock import Clock, format_us, parse_us
from evenkeel.libs.estimators import estimator_named
from evenkeel.libs.keys import signing_key, verification_keys
from evenkeel.libs.packages.errors import PackageError
from evenkeel.libs.packages.package import Package, read_package, write_package
from evenkeel.libs.packages.scorer import Scorer
from evenkeel.services.trainer.domain.job import Candidate, JobRequest, JobResult, Refused
from evenkeel.services.trainer.domain.training import train
from evenkeel.services.trainer.training_table import read_table

ALWAYS_RECORDED: Final = ("onnxruntime", "deltalake", "pyarrow")
"""What reads the table and answers for every package, beside the libraries of the estimators that were tried."""


def run(request: JobRequest, clock: Clock, seconds: Callable[[], float]) -> JobResult:
    """Do one job; a model that cannot come out is an answer (`refused`), anything else raises.

    `seconds` is a monotonic clock that counts the run's wall time.
    """
    training = request.training
    began = seconds()
    marks: dict[str, float] = {}

    def mark(name: str) -> None:
        marks[name] = round(seconds() - began - sum(marks.values()), 4)

    pa.set_cpu_count(training.threads)
    try:
        label_cut_us = parse_us(training.dataset.label_cut)
        table = read_table(Path(request.table), training.dataset.version, training.features, label_cut_us)
        mark("read")
        champion = _champion(request)
        trained = train(training, table, champion, versions(training.candidates), lambda: seconds() - began)
        mark("train")
    except Refused as refused:
        return JobResult(
            outcome="refused", run_id=training.run_id, reason=refused.reason, detail=str(refused), seconds=marks
        )
    artifacts, keys = Path(request.artifacts), Path(request.keys)
    key = signing_key(keys, "trainer")
    ref = write_package(artifacts, trained.contents, key, signed_at=format_us(clock.now_us()))
    written = read_package(artifacts, ref.digest, {"trainer": key.verification_key})
    golden_rows = Scorer(written).check_golden()
    mark("package")
    manifest = trained.contents.manifest
    return JobResult(
        outcome="completed",
        run_id=training.run_id,
        package=ref.digest,
        package_uri=ref.uri,
        package_bytes=ref.size_bytes,
        estimator=trained.estimator,
        parameters=manifest.parameters,
        threshold=manifest.threshold,
        dataset_rows=len(table.label),
        golden_rows=golden_rows,
        golden_matched=True,
        evidence=trained.evidence,
        seconds=marks,
    )


def versions(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Of Python and of the libraries that shape a model."""
    libraries = {name for candidate in candidates for name in estimator_named(candidate.estimator).libraries}
    recorded = {name: importlib.metadata.version(name) for name in sorted(libraries.union(ALWAYS_RECORDED))}
    return {"python": platform.python_version()} | recorded


def stopwatch() -> Callable[[], float]:
    began = time.monotonic()
    return lambda: time.monotonic() - began


def _champion(request: JobRequest) -> Package | None:
    if request.champion is None:
        return None
    try:
        return read_package(Path(request.artifacts), request.champion, verification_keys(Path(request.keys)))
    except PackageError as error:
        raise Refused("error", f"the champion cannot be compared with: {error}") from error
