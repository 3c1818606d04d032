from __future__ import annotations

import pytest

from evenkeel.libs.features.labels import parse_label


@pytest.mark.parametrize(
    ("expression", "value", "expected"),
    [
        ("delay > 15", 15, 0.0),
        ("delay > 15", 15.5, 1.0),
        ("delay>=15", 15, 1.0),
        ("delay < -1.5e1", -16, 1.0),
        ("delay <= 0", 0, 1.0),
        ("delay == 1", True, 1.0),
        ("delay != 1", 2, 1.0),
        ("delay", 12.5, 12.5),
        ("delay", True, 1.0),
        (" delay ", None, None),
        ("delay > 15", "20", None),
        ("delay > 15", float("nan"), None),
        ("delay", 10**400, None),
    ],
)
def test_a_label_is_read_from_its_record(expression: str, value: object, expected: float | None) -> None:
    assert parse_label(expression).value({"delay": value}) == expected
    assert parse_label(expression).value({}) is None


@pytest.mark.parametrize(
    "expression",
    ["", "15 >", "> 15", "delay > 15 or 1", "delay => 15", "__import__('os')", "delay > nan", "delay > 1e9999", "a b"],
)
def test_anything_else_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="is not a label"):
        parse_label(expression)
