"""Whatever the delays of labels: training labels lie before the cut, evaluation events after it, and no row is both."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evenkeel.libs.clock import HOUR_US
from evenkeel.services.trainer.domain.split import temporal_split
from tests.tiny_packages import START_US, table_of

_hours = st.integers(0, 400)


@given(
    st.lists(st.tuples(_hours, st.integers(0, 200)), max_size=60),
    _hours,
    st.integers(0, 100),
    st.integers(1, 300),
    st.one_of(st.none(), st.integers(1, 300)),
    st.one_of(st.none(), _hours),
)
def test_split_respects_time(
    events: list[tuple[int, int]], cut: int, horizon: int, holdout: int, span: int | None, unseen_from: int | None
) -> None:
    event = START_US + np.array(sorted(hour for hour, _ in events), dtype=np.int64) * HOUR_US
    label = event + np.array([delay for _, delay in events], dtype=np.int64) * HOUR_US
    label_cut_us = START_US + cut * HOUR_US
    split = temporal_split(
        table_of(event, label, np.zeros(len(event)), np.zeros((len(event), 1), dtype=np.float32)),
        label_cut_us=label_cut_us,
        label_horizon_us=horizon * HOUR_US,
        holdout_us=holdout * HOUR_US,
        max_span_us=None if span is None else span * HOUR_US,
        max_rows=20,
        unseen_from_us=None if unseen_from is None else START_US + unseen_from * HOUR_US,
    )
    assert len(split.training) <= 20
    assert (label[split.training] < min(split.cut_us, label_cut_us)).all()
    assert (label[split.evaluation] < label_cut_us).all()
    assert (event[split.evaluation] >= split.cut_us).all()
    assert (event[split.evaluation] + horizon * HOUR_US < label_cut_us).all()
    assert not set(split.training) & set(split.evaluation)
    if unseen_from is not None:
        assert (event[split.evaluation] >= START_US + unseen_from * HOUR_US).all()
