"""What was measured: a value per round and contestant, ratios within each round, targets, and the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

import msgspec

OURS: Final = "Evenkeel"


class Target(msgspec.Struct, frozen=True):
    """A bound on a quantity: of our own median, or of the median ratio to a peer. `bound` is at least, or at most."""

    quantity: str
    bound: float
    against: str | None = None
    at_most: bool = False


class Quantity(msgspec.Struct):
    """One thing measured, by contestant, one value per round in the order of the rounds."""

    name: str
    unit: str
    less_is_better: bool = False
    values: dict[str, list[float]] = {}

    def ratios(self, peer: str, ours: str = OURS) -> list[float]:
        """How many times better ours was, round by round; rounds that one of them did not finish are left out."""
        pairs = zip(self.values.get(ours, ()), self.values.get(peer, ()), strict=False)
        return [theirs / own if self.less_is_better else own / theirs for own, theirs in pairs if own and theirs]


class Result(msgspec.Struct):
    """One benchmark's figures, kept as a file so that each can be measured again alone."""

    name: str
    title: str
    method: str
    command: str
    measured_at: str
    rounds: int
    machine: str
    versions: dict[str, str] = {}
    quantities: list[Quantity] = []
    targets: list[Target] = []
    missing: dict[str, str] = {}
    """Contestant → why there is no figure of it."""
    notes: list[str] = []

    def quantity(self, name: str) -> Quantity | None:
        return next((one for one in self.quantities if one.name == name), None)


class Verdict(msgspec.Struct, frozen=True):
    target: str
    measured: str
    outcome: str


def shown(value: float) -> str:
    """Three figures, and all that stand before the point.

    >>> shown(12345.6), shown(3.14159), shown(0.012345)
    ('12,346', '3.14', '0.0123')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Median, and lowest to highest if there are several."""
    if len(values) == 1:
        return shown(values[0])
    return f"{shown(median(values))} ({shown(min(values))}–{shown(max(values))})"


def verdict(result: Result, target: Target) -> Verdict:
    """What came of a target; a missed one is said as plainly as one that was met."""
    sign = "≤" if target.at_most else "≥"
    quantity = result.quantity(target.quantity)
    unit = "×" if target.against else (quantity.unit if quantity else "")
    beside = f" {target.against}" if target.against else ""
    text = f"{target.quantity}: {sign} {shown(target.bound)} {unit}{beside}"
    values = []
    if quantity is not None:
        values = quantity.ratios(target.against) if target.against else quantity.values.get(OURS, [])
    if not values:
        why = result.missing.get(target.against or OURS)
        return Verdict(text, "–", "not measured" + (", see below" if why else ""))
    found = median(values)
    is_met = found <= target.bound if target.at_most else found >= target.bound
    return Verdict(text, f"{spread(values)} {unit}", "met" if is_met else "**missed**")


def page(results: Mapping[str, Result]) -> str:
    """docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; nothing here is typed by hand. Peers run in virtual environments of their own, on the "
        "same machine and the same work, in turns with Evenkeel; client, server and broker share the cores. Each figure "
        "is the median over the rounds, with the lowest and the highest; a ratio is taken within each round, and means "
        "how many times better Evenkeel was. Absolute figures move with the machine: trust the ratios.",
        "",
        "## Targets",
        "",
        "| target | measured | |",
        "|---|---|---|",
    ]
    for result in results.values():
        for target in result.targets:
            found = verdict(result, target)
            lines.append(f"| {found.target} | {found.measured} | {found.outcome} |")
    for result in results.values():
        lines += ["", *section(result)]
    return "\n".join(lines) + "\n"


def section(result: Result) -> list[str]:
    """One benchmark."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [f"## {result.title}", "", result.method, ""]
    lines.append(
        f"`{result.command}`, {result.measured_at}, {result.rounds} round{'s' * (result.rounds > 1)}. {result.machine}"
    )
    if versions:
        lines[-1] += f" Versions: {versions}."
    lines += ["", "| | | median (lowest–highest) | Evenkeel is better by |", "|---|---|---|---|"]
    for quantity in result.quantities:
        named = f"{quantity.name}, {quantity.unit}"
        for contestant, values in quantity.values.items():
            ratios = [] if contestant.startswith(OURS) else quantity.ratios(contestant)
            better = f"{spread(ratios)} ×" if ratios else ""
            lines.append(f"| {named} | {contestant} | {spread(values)} | {better} |")
            named = ""
    for contestant, why in result.missing.items():
        lines += ["", f"No figure of {contestant}: {why}"]
    for note in result.notes:
        lines += ["", note]
    return lines
