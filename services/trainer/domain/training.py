"""One training run as a pure function: the same request, table, champion and versions give the same package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from evenkeel.libs.clock import format_us, parse_us
from evenkeel.libs.estimators import Fitted, estimator_named
from evenkeel.libs.metrics import DEFAULT_THRESHOLD, compare, decisions, evaluate
from evenkeel.libs.packages.manifest import (
    DatasetRecord,
    FeatureSchema,
    GoldenRows,
    ManifestCore,
    Split,
)
from evenkeel.libs.packages.package import Package, PackageContents
from evenkeel.libs.packages.scorer import RowModel, Scorer
from evenkeel.libs.sketches.profile import build_profile
from evenkeel.services.trainer.domain.export import TOLERANCE, Exported, export
from evenkeel.services.trainer.domain.fitting import fit
from evenkeel.services.trainer.domain.job import (
    Candidate,
    Evidence,
    Refused,
    Scores,
    TrainingRequest,
)
from evenkeel.services.trainer.domain.selection import Selection, select
from evenkeel.services.trainer.domain.split import TemporalSplit, TrainingTable, temporal_split

GOLDEN_ROWS: Final = 16
GOLDEN_TOLERANCE: Final = 1e-5
PARITY_ROWS: Final = 4_000
"""Training rows and evaluation rows each, at most."""


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A package's contents and the evidence in them."""

    contents: PackageContents
    evidence: Evidence
    estimator: str


def train(
    request: TrainingRequest,
    table: TrainingTable,
    champion: Package | None,
    versions: Mapping[str, str],
    elapsed_seconds: Callable[[], float],
) -> TrainingResult:
    """Train the best candidate on the older rows and compare it with the champion on newer ones that neither has seen.

    `versions`: of Python and libraries, recorded. `elapsed_seconds`: wall time spent so far, against the budget.
    Raises `Refused` with its reason when no trustworthy model can come out.
    """
    if champion is not None and champion.manifest.model != request.model:
        raise Refused(
            "error", f"the champion {champion.digest} is of model {champion.manifest.model}, not {request.model}"
        )
    split = temporal_split(
        table,
        label_cut_us=parse_us(request.dataset.label_cut),
        label_horizon_us=request.label_horizon_us,
        holdout_us=request.holdout_us,
        max_span_us=request.max_span_us,
        max_rows=request.max_rows,
        unseen_from_us=parse_us(champion.manifest.split.training_label_cut) if champion else None,
    )
    _check(request, table, split)
    for candidate in request.candidates:
        estimator_named(candidate.estimator).load()  # first: limits hold for the libraries that are there
    with threadpool_limits(limits=request.threads):  # of BLAS and OpenMP; sums depend on their number
        selection = select(request, table, split.training, elapsed_seconds)
        training, label = table.rows[split.training], table.label[split.training]
        chosen = selection.candidate
        fitted = fit(chosen, request.task, training, label, request.seed)
        unseen = table.rows[split.evaluation]
        parity_sample = _parity_sample(training, unseen)
        exported = export(fitted, request.task, parity_sample)
    evidence = _evidence(request, table, split, selection, exported, champion, len(parity_sample))
    contents = PackageContents(
        manifest=_manifest(request, table, split, selection, fitted, exported, versions),
        model_onnx=exported.onnx,
        golden=_golden(request, unseen, exported.served),
        profile=build_profile(request.features, training),
        metrics=evidence.model_dump(mode="json"),
        linear=exported.linear,
    )
    return TrainingResult(contents, evidence, chosen.estimator)


def _check(request: TrainingRequest, table: TrainingTable, split: TemporalSplit) -> None:
    if parse_us(request.as_of) < parse_us(request.dataset.label_cut):
        raise Refused(
            "error",
            f"the dataset reaches to {request.dataset.label_cut}, past the decision's time {request.as_of}: "
            "name the last dataset version before it",
        )
    window = f"{format_us(split.evaluation_from_us)} to {format_us(split.evaluation_until_us)}"
    for name, found, least in (
        ("training", len(split.training), request.min_training_rows),
        ("evaluation", len(split.evaluation), request.min_evaluation_rows),
    ):
        if found < least:
            raise Refused(
                "too_few_rows",
                f"{found} {name} rows of {len(table.label)}, at least {least} are needed (cut {format_us(split.cut_us)}, "
                f"evaluation {window}): wait for more labels, or shorten the holdout",
            )
    for column, name in enumerate(request.features):
        if np.isinf(table.rows[:, column]).any():
            raise Refused("error", f"feature {name} is infinite in some rows: bound it in its declaration")
    if not np.isfinite(table.label).all():
        raise Refused("error", f"label {request.label} is missing or infinite in some rows")
    if request.task == "binary":
        if not np.isin(table.label, (0.0, 1.0)).all():
            raise Refused("error", f"label {request.label} of a binary model must be 0 or 1")
        for name, part in (("training", split.training), ("evaluation", split.evaluation)):
            positives = int(table.label[part].sum())
            if positives < 2 or len(part) - positives < 2:
                raise Refused(
                    "one_class", f"{positives} of {len(part)} {name} rows are positive: two of each class are needed"
                )


def _evidence(
    request: TrainingRequest,
    table: TrainingTable,
    split: TemporalSplit,
    selection: Selection,
    exported: Exported,
    champion: Package | None,
    parity_rows: int,
) -> Evidence:
    label, unseen = table.label[split.evaluation], table.rows[split.evaluation]
    score = _finite(exported.served.predict(unseen), "the candidate")
    threshold = DEFAULT_THRESHOLD if selection.threshold is None else selection.threshold
    theirs, comparison, no_comparison_because = None, None, None
    if champion is None:
        no_comparison_because = "there is no champion"
    elif champion.manifest.features != FeatureSchema(view_version=request.view_version, names=request.features):
        no_comparison_because = f"the champion uses features of another view, {champion.manifest.features.view_version}"
    else:
        their_score = _finite(Scorer(champion).predict(unseen), f"the champion {champion.digest}")
        their_threshold = champion.manifest.threshold
        if their_threshold is None:
            their_threshold = DEFAULT_THRESHOLD
        their_decisions = decisions(their_score, their_threshold)
        theirs = Scores(digest=champion.digest, metrics=evaluate(request.task, label, their_score, their_decisions))
        comparison = compare(
            request.metric,
            label,
            score,
            their_score,
            confidence=request.confidence,
            candidate_threshold=threshold,
            champion_threshold=their_threshold,
        )
    return Evidence(
        metric=request.metric,
        training_rows=len(split.training),
        evaluation_rows=len(split.evaluation),
        candidate=Scores(digest=None, metrics=evaluate(request.task, label, score, decisions(score, threshold))),
        champion=theirs,
        comparison=comparison,
        no_comparison_because=no_comparison_because,
        trials=selection.trials,
        parity_rows=parity_rows,
        parity_difference=exported.parity_difference,
        parity_tolerance=TOLERANCE,
    )


def _finite(score: NDArray[np.float64], who: str) -> NDArray[np.float64]:
    if not np.isfinite(score).all():
        raise Refused("error", f"{who} answers some evaluation rows with NaN or infinity")
    return score


def _parity_sample(training: NDArray[np.float32], unseen: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows spread over both parts, and one with everything missing."""
    parts = [rows[:: max(1, len(rows) // PARITY_ROWS)] for rows in (training, unseen)]
    return np.vstack([*parts, np.full((1, training.shape[1]), np.nan, dtype=np.float32)])


def _golden(request: TrainingRequest, unseen: NDArray[np.float32], served: RowModel) -> GoldenRows:
    """Evaluation rows, half of them with gaps if there are such, and one with everything missing."""
    generator = np.random.default_rng(request.seed)
    has_gap = np.isnan(unseen).any(axis=1)
    gapped = generator.permutation(np.flatnonzero(has_gap))[: GOLDEN_ROWS // 2]
    whole = generator.permutation(np.flatnonzero(~has_gap))[: GOLDEN_ROWS - 1 - len(gapped)]
    rows = np.vstack([unseen[whole], unseen[gapped], np.full((1, unseen.shape[1]), np.nan, dtype=np.float32)])
    return GoldenRows(
        tolerance=GOLDEN_TOLERANCE,
        rows=tuple(tuple(None if value != value else value for value in row) for row in rows.tolist()),
        expected=tuple(served.predict(rows).tolist()),
    )


def _manifest(
    request: TrainingRequest,
    table: TrainingTable,
    split: TemporalSplit,
    selection: Selection,
    fitted: Fitted,
    exported: Exported,
    versions: Mapping[str, str],
) -> ManifestCore:
    candidate: Candidate = selection.candidate
    return ManifestCore(
        model=request.model,
        task=request.task,
        run_id=request.run_id,
        created=request.as_of,
        stream=request.stream,
        label=request.label,
        declaration=request.declaration,
        features=FeatureSchema(view_version=request.view_version, names=request.features),
        estimator=candidate.estimator,
        parameters=fitted.parameters,
        threshold=selection.threshold,
        onnx=exported.file,
        linear=exported.linear is not None,
        dataset=DatasetRecord(
            uri=request.dataset.uri,
            version=request.dataset.version,
            rows=len(table.label),
            first_event_time=format_us(int(table.event_time_us[0])),
            last_event_time=format_us(int(table.event_time_us[-1])),
            label_cut=request.dataset.label_cut,
            offsets=request.dataset.offsets,
            content_sha256=table.content_sha256,
        ),
        split=Split(
            training_rows=len(split.training),
            training_label_cut=format_us(split.cut_us),
            evaluation_rows=len(split.evaluation),
            evaluation_from=format_us(split.evaluation_from_us),
            evaluation_until=format_us(split.evaluation_until_us),
        ),
        code_commit=request.code_commit,
        seed=request.seed,
        threads=request.threads,
        versions=dict(versions),
    )
