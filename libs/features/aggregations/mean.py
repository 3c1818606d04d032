"""Mean of the field's values in the window."""

from __future__ import annotations

from evenkeel.libs.features.tiles import Summary, Tile


def read(summary: Summary, newest: Tile, at_us: int) -> float:
    """In the field's unit. Source: Welford (1962) inside a tile, Chan, Golub and LeVeque (1979) across them.

    >>> newest = Tile(0, 7_000_000, "b", 4.0)
    >>> read(Summary(n=2, mean=3.0, m2=2.0, min=2.0, max=4.0), newest, 10_000_000)
    3.0
    """
    return summary.mean
