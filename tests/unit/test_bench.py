"""The benchmarks' own arithmetic: ratios, verdicts, and a load generator that counts what it gets."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench.figures import OURS, Quantity, Result, Target, page, verdict
from tests.bench.http_load import load, request


def result(*quantities: Quantity, targets: tuple[Target, ...] = (), **more: object) -> Result:
    given = {"name": "b", "title": "B", "method": "", "command": "make bench", "measured_at": "today", "rounds": 3}
    return Result(**given | more, machine="2 cores.", quantities=list(quantities), targets=list(targets))  # type: ignore[arg-type]


RATE = Quantity("rate", "events/s", values={OURS: [10.0, 20.0, 60.0], "peer": [10.0, 10.0, 10.0]})
TIME = Quantity("time", "ms", True, {OURS: [2.0], "peer": [10.0]})


def test_a_ratio_is_taken_within_each_round_and_means_how_many_times_better() -> None:
    assert RATE.ratios("peer") == [1.0, 2.0, 6.0]
    assert TIME.ratios("peer") == [5.0]
    assert RATE.ratios("nobody") == []


@pytest.mark.parametrize(
    ("target", "outcome"),
    [
        (Target("rate", 20), "met"),
        (Target("rate", 21), "**missed**"),
        (Target("rate", 2, "peer"), "met"),
        (Target("rate", 2.5, "peer"), "**missed**"),
        (Target("time", 2, at_most=True), "met"),
        (Target("time", 1, at_most=True), "**missed**"),
        (Target("rate", 2, "nobody"), "not measured"),
    ],
)
def test_a_target_is_met_by_the_median_or_said_to_be_missed(target: Target, outcome: str) -> None:
    assert verdict(result(RATE, TIME), target).outcome == outcome


def test_the_page_shows_missed_targets_and_why_a_peer_has_no_figure() -> None:
    found = result(RATE, targets=(Target("rate", 21), Target("rate", 2, "x")), missing={"x": "it does not install."})
    text = page({"b": found})
    assert "| rate: ≥ 21 events/s | 20 (10–60) events/s | **missed** |" in text
    assert "| rate: ≥ 2 × x | – | not measured, see below |" in text
    assert "No figure of x: it does not install." in text
    assert "| rate, events/s | Evenkeel | 20 (10–60) |  |" in text
    assert "|  | peer | 10 (10–10) | 2 (1–6) × |" in text


@pytest.mark.anyio
async def test_the_load_generator_counts_every_answer_and_names_the_first_that_is_not_2xx() -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65_536):
            asked.append(head)
            status = b"500 Broken" if len(asked) == 3 else b"200 OK"
            # In two pieces, as large answers come.
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nhe")
            await writer.drain()
            writer.write(b"llo")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sent = [request("POST", f"/{number}", {"number": number}) for number in range(10)]
    found = await load(port, sent, 30.0, 2)
    server.close()
    assert sorted(asked) == sorted(sent)
    assert (len(found.latencies), found.failed) == (10, 1)
    assert found.first_failure.startswith("HTTP/1.1 500 Broken")
