"""The demo's live view: where the stream is, how far behind each service is, which model answers, and how well."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from evenkeel.apps.demo.replay import Replay
from evenkeel.libs.clock import DAY_US, format_us

ROLLING_DAYS: Final = 14


def render(replay: Replay) -> RenderableType:
    """One frame."""
    seen, asked = replay.seen, replay.asked
    now_us = replay.producers.hour_us if replay.producers else 0
    head = Table.grid(padding=(0, 3))
    head.add_row(
        f"[bold]{format_us(now_us)[:16].replace('T', ' ') if now_us else 'starting'}[/]",
        f"{replay.sent:,} of {len(seen.flights.records):,} records",
        f"{replay.pace:,.0f} events/s",
        f"{replay.elapsed_seconds:.0f} s",
        f"[yellow]{replay.held}[/]" if replay.held else "",
    )
    champion = seen.champion or {}
    loop, _ = seen.auc(seen.loop_score, now_us - ROLLING_DAYS * DAY_US, now_us)
    frozen, _ = seen.auc(seen.frozen_score, now_us - ROLLING_DAYS * DAY_US, now_us)
    facts = Table.grid(padding=(0, 3))
    facts.add_row("champion", f"version {champion.get('version', '–')}, epoch {champion.get('epoch', '–')}")
    facts.add_row(f"AUC, last {ROLLING_DAYS} days", f"[green]loop {loop:.3f}[/]   first model kept frozen {frozen:.3f}")
    facts.add_row("fits, promotions", f"{seen.fits}, {len(seen.promotions)}")
    facts.add_row(
        "drift, decay", f"{seen.counts['monitor.drift-detected.v1']}, {seen.counts['monitor.performance-degraded.v1']}"
    )
    facts.add_row(
        "client",
        f"{asked.by_features:,} by features, {asked.by_keys:,} by keys, "
        f"[{'red' if asked.failed else 'green'}]{asked.failed} failed[/]",
    )
    lag = Table.grid(padding=(0, 2))
    lag.add_row("[dim]behind[/]", *(f"{name} {behind:,}" for name, behind in replay.gauges.lag.items()))
    return Panel(Group(head, "", facts, "", lag, "", *seen.last_messages), title=f"Evenkeel: {seen.model}", expand=True)


def line(replay: Replay) -> str:
    """The same, for a terminal that is none."""
    seen = replay.seen
    now_us = replay.producers.hour_us if replay.producers else 0
    champion = (seen.champion or {}).get("version", "–")
    return (
        f"{replay.elapsed_seconds:6.0f} s  {format_us(now_us)[:13] if now_us else 'starting'}  {replay.sent:,} records  "
        f"{replay.pace:,.0f}/s  version {champion}  fits {seen.fits}  failed requests {replay.asked.failed}"
        + (f"  ({replay.held})" if replay.held else "")
    )
