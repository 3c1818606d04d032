"""The account at the end: counted from the topics, not from what anybody says of himself."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from evenkeel.apps.demo.flights import YEAR_START_US
from evenkeel.apps.demo.replay import Replay
from evenkeel.apps.demo.watch import Seen, weekly_auc
from evenkeel.contracts.envelope import IN_BAND_TYPES
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.client.clients import Client
from evenkeel.libs.client.errors import ServiceError
from evenkeel.libs.clock import DAY_US, format_us
from evenkeel.libs.errors import EvenkeelError

FIRST_SCORED_DAY: Final = 28
LARGEST_MODULUS: Final = 2**256


def summarise(replay: Replay, say: Callable[[str], None]) -> dict[str, Any]:
    """Count, explain one prediction, verify the log, draw the picture; writes `demo-summary.json` beside the data."""
    seen, supervisor = replay.seen, replay.supervisor
    say("counting what arrived")
    counts = asyncio.run(_count(supervisor.broker, seen)) | {"expired_waits": _expired_waits(replay)}
    say("explaining one prediction and verifying the log")
    explained = _explain(replay)
    verified = _verify(supervisor.data_dir)
    first_us, end_us = YEAR_START_US + FIRST_SCORED_DAY * DAY_US, seen.flights.end_us
    loop, rows = seen.auc(seen.loop_score, first_us, end_us)
    frozen, _ = seen.auc(seen.frozen_score, first_us, end_us)
    adaptive = seen.first_adaptive_promotion_us
    summary: dict[str, Any] = {
        "days": round((end_us - YEAR_START_US) / DAY_US),
        "seconds": round(replay.replayed_seconds, 1),
        "records_per_second": round(replay.sent / replay.replayed_seconds, 1),
        "auc": {"from_day": FIRST_SCORED_DAY, "rows": rows, "loop": _rounded(loop), "frozen": _rounded(frozen)},
        "fits": seen.fits,
        "promotions": len(seen.promotions),
        "drift_signals": seen.counts["monitor.drift-detected.v1"],
        "decay_signals": seen.counts["monitor.performance-degraded.v1"],
        "decisions_not_to_retrain": {k: v for k, v in sorted(seen.counts.items()) if k.startswith("declined")},
        "first_promotion_after_drift_or_decay_seconds": None
        if adaptive is None
        else round((adaptive - replay.started_wall_us) / 1e6, 1),
        "turns": [turn.as_json() for turn in seen.turns.values()],
        "counts": counts,
        "client": {
            "by_features": replay.asked.by_features,
            "by_keys": replay.asked.by_keys,
            "failed": replay.asked.failed,
            "failures": replay.asked.failures,
            "slowest_seconds": round(replay.asked.slowest_seconds, 3),
            "versions_seen": sorted(replay.asked.versions),
        },
        "vectors_digest": f"{seen.vectors_digest % LARGEST_MODULUS:064x}",
        "memory": _memory(supervisor.pids),
        "explained": explained,
        "verified": verified,
        "addresses": supervisor.urls,
    }
    picture = supervisor.data_dir / "demo-auc.png"
    draw(seen, picture)
    summary["picture"] = str(picture)
    path = supervisor.data_dir / "demo-summary.json"
    path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    for text in _lines(summary, path):
        say(text)
    return summary


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 5)


async def _count(broker: str, seen: Seen) -> dict[str, Any]:
    """Ids sent against ids on the accepted topics: what is missing, what is there twice, what was refused."""
    raw = Counter(record.topic for record in seen.flights.records)
    result: dict[str, Any] = {"sent": sum(raw.values())}
    accepted = await _ids(broker, "ingest.event-accepted.v1")
    labels = await _ids(broker, "ingest.label-accepted.v1")
    vectors = await _ids(broker, "feature.vector-computed.v1")
    predictions = await _ids(broker, "serving.prediction-made.v1")
    rejected = await _ids(broker, "ingest.event-rejected.v1")
    logged = len(accepted) + len(labels) + len(rejected)
    result |= {
        "accepted_events": len(accepted),
        "accepted_labels": len(labels),
        "logged": logged,
        "lost": sum(raw.values()) - logged,
        "duplicated": sum(sum(ids.values()) - len(ids) for ids in (accepted, labels, vectors, predictions)),
        "rejected": len(rejected),
        "vectors": len(vectors),
        "predictions": len(predictions),
    }
    return result


def _expired_waits(replay: Replay) -> int:
    """How often a silent raw partition was left out of a watermark, by ingest's own count."""
    with Client(replay.supervisor.urls, token=replay.supervisor.token) as client:
        streams = client.ingest.streams().streams
    return sum(inflow.wait_expired for s in streams for inflow in (s.events, s.labels) if inflow is not None)


async def _ids(broker: str, topic: str) -> Counter[bytes]:
    """How often each event id stands on a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, max_partition_fetch_bytes=8_388_608)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, p) for p in range(BY_NAME[topic].partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for tp in partitions:
            consumer.seek(tp, 0)
        ids: Counter[bytes] = Counter()
        left = {tp: end for tp, end in ends.items() if end > 0}
        while left:
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    headers = dict(record.headers)
                    if headers["ce_type"] not in IN_BAND_TYPES:
                        ids[headers["ce_id"]] += 1
                if tp in left and records[-1].offset + 1 >= left[tp]:
                    del left[tp]
        return ids
    finally:
        await consumer.stop()


def _explain(replay: Replay) -> dict[str, Any]:
    """One prediction of the last champion, followed back to its raw record through governance."""
    supervisor, seen = replay.supervisor, replay.seen
    scored = np.flatnonzero(~np.isnan(seen.loop_score) & ~np.isnan(seen.flights.late))
    if not len(scored):
        raise EvenkeelError("no flight has both a prediction and an outcome: see serving.log in the data folder")
    flight = seen.flights.ids[int(scored[-1])]
    with Client(supervisor.urls, token=supervisor.token) as client:
        try:
            found = client.governance.prediction(flight, model=seen.model)
        except ServiceError as error:
            return {"flight": flight, "error": str(error)}
    return {"flight": flight, "history": found.model_dump(mode="json")}


def _verify(data_dir: Path) -> dict[str, Any]:
    from evenkeel.apps.cli.verify import verify_data_folder

    report: dict[str, Any] = verify_data_folder(data_dir)
    return report


def _memory(pids: dict[str, int]) -> dict[str, Any]:
    """Peak resident memory of each process and of the sum, from the kernel's own account."""
    peaks = {}
    for name, pid in pids.items():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            peaks[name] = int(status.split("VmHWM:")[1].split()[0]) // 1024
        except (OSError, IndexError):
            continue
    return {"peak_mib": peaks, "sum_of_peaks_mib": sum(peaks.values())}


def draw(seen: Seen, path: Path) -> None:
    """AUC by week over the year, the loop's and the frozen model's, with promotions marked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 5), dpi=120)
    for score, name, colour in (
        (seen.loop_score, "the loop", "#1b7f5c"),
        (seen.frozen_score, "first model, kept frozen", "#b0513c"),
    ):
        weeks = [
            (at, auc) for at, auc in weekly_auc(seen, score, YEAR_START_US, seen.flights.end_us) if not np.isnan(auc)
        ]
        axes.plot([at / DAY_US for at, _ in weeks], [auc for _, auc in weeks], label=name, color=colour, linewidth=2)
    for at, version, cause in seen.promotions:
        axes.axvline(
            at / DAY_US,
            color="#666666",
            linewidth=0.8,
            linestyle=":" if cause != "rollback" else "--",
        )
        axes.annotate(
            f"v{version}",
            (at / DAY_US, 1.0),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            ha="center",
            va="bottom",
        )
    axes.xaxis_date()
    axes.set_ylabel("AUC by week of departure")
    axes.set_title(f"{seen.model}: {format_us(YEAR_START_US)[:4]}, promotions marked", pad=18)
    axes.legend(loc="lower left")
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _lines(summary: dict[str, Any], path: Path) -> list[str]:
    auc, counts, client = summary["auc"], summary["counts"], summary["client"]
    lines = [
        "",
        f"{summary['days']} days in {summary['seconds']:.0f} s, {summary['records_per_second']:,.0f} records/s",
        f"AUC from day {auc['from_day']}: loop {auc['loop']}, first model kept frozen {auc['frozen']}, {summary['fits']} fits, "
        f"{summary['promotions']} promotions",
        f"sent {counts['sent']:,}, logged {counts['logged']:,}, lost {counts['lost']}, duplicated {counts['duplicated']}, "
        f"rejected {counts['rejected']}, expired waits {counts['expired_waits']}",
        f"client: {client['by_features']:,} by features, {client['by_keys']:,} by keys, {client['failed']} failed, "
        f"slowest {client['slowest_seconds']} s, versions {client['versions_seen']}",
        f"first promotion after drift or decay: {summary['first_promotion_after_drift_or_decay_seconds']} s after the start",
        f"memory: {summary['memory']['sum_of_peaks_mib']:,} MiB, all peaks together",
        "",
        "loop turns (event time, trigger, outcome, seconds to decide, train, promote, activate, gain in AUC)",
    ]
    for turn in summary["turns"]:
        steps = [turn[f"time_to_{step}_seconds"] for step in ("decide", "train", "promote", "activate")]
        shown = " ".join("     –" if s is None else f"{s:6.2f}" for s in steps)
        gain = "" if turn["auc_gain"] is None else f"{turn['auc_gain']:+.4f}"
        lines.append(f"  {turn['event_time'][:10]}  {turn['trigger']:<10} {turn['outcome']:<32} {shown}  {gain}")
    lines += [
        "",
        *_history(summary["explained"]),
        "",
        f"log verified: {json.dumps(summary['verified'])}",
        f"picture {summary['picture']}",
        f"summary {path}",
    ]
    return lines


def _history(explained: dict[str, Any]) -> list[str]:
    if "error" in explained:
        return [f"flight {explained['flight']} could not be explained: {explained['error']}"]
    steps = explained["history"].get("steps", [])
    return [f"history of the prediction for flight {explained['flight']}"] + [
        f"  {step.get('what', '')}: {step.get('summary', '')}" for step in steps
    ]
