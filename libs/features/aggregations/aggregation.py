"""What an aggregation is: a row of the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from evenkeel.libs.features.tiles import Summary, Tile

NAN: Final = float("nan")

Need: TypeAlias = Literal["moments", "spread", "extremes"]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One row of the catalogue.

    `read(summary, newest, at_us)`: the value at a time in microseconds UTC, of a window with one record or more. `summary`
    is the merge of the window's tiles as far as `needs` goes: "moments" (n, mean), "spread" (M2, too), "extremes" (min
    and max, too), or nothing at all, which is faster; `newest` is the newest tile, which has the latest record.
    `empty`: the value of a window without a record. `of_records`: it makes sense for records as such, too, without a field.
    """

    name: str
    needs: tuple[Need, ...]
    read: Callable[[Summary, Tile, int], float]
    empty: float = NAN
    of_records: bool = False
