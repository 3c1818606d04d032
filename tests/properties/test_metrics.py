"""The area under the ROC curve is the share of pairs ranked right, whatever the ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel.libs.metrics import best_f1_threshold, metric_named

_rows = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda rows: len({positive for positive, _ in rows}) == 2
)


@given(_rows)
def test_roc_auc_counts_pairs(rows: list[tuple[bool, int]]) -> None:
    label = np.array([float(positive) for positive, _ in rows])
    score = np.array([value / 6 for _, value in rows])
    wins = [
        1.0 if mine > theirs else 0.5 if mine == theirs else 0.0
        for positive, mine in rows
        if positive
        for other, theirs in rows
        if not other
    ]
    assert metric_named("roc_auc").value(label, score) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


@given(_rows)
def test_no_threshold_has_a_better_f1(rows: list[tuple[bool, int]]) -> None:
    label = np.array([float(positive) for positive, _ in rows])
    score = np.array([value / 6 for _, value in rows])
    f1 = metric_named("f1")
    found = f1.value(label, f1.judged(score, best_f1_threshold(label, score)))
    assert found >= max(f1.value(label, f1.judged(score, cut)) for cut in score) - 1e-12
