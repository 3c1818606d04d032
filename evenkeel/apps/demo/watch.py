"""What an outsider can see: the demo follows the topics as a plain consumer and keeps score.

It scores every vector with the first champion, frozen, beside the loop's own predictions, and follows each turn of the loop
from the decision to retrain until activation, refusal or failure.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from evenkeel.apps.demo.flights import Flights
from evenkeel.contracts.envelope import CLOCK_TYPE, IN_BAND_TYPES, parse_us
from evenkeel.contracts.runtime import ClockAdvanced
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.keys import verification_keys
from evenkeel.libs.metrics import metric_named
from evenkeel.libs.packages.package import read_package
from evenkeel.libs.packages.scorer import Scorer

_TOPICS: Final = (
    "feature.vector-computed.v1",
    "serving.prediction-made.v1",
    "serving.version-activated.v1",
    "serving.activation-failed.v1",
    "trainer.retrain-decided.v1",
    "trainer.run-completed.v1",
    "trainer.run-failed.v1",
    "registry.gate-decided.v1",
    "registry.champion-changed.v1",
    "monitor.drift-detected.v1",
    "monitor.performance-degraded.v1",
    "monitor.window-measured.v1",
)
_CLOCK: Final = CLOCK_TYPE.encode()


@dataclass
class Turn:
    """One turn of the loop. Times are wall clock, microseconds; `asked_us` is when the trigger was published."""

    run_id: str
    trigger: str
    event_time: str
    asked_us: int
    decided_us: int
    detect_event_seconds: float | None = None
    trained_us: int | None = None
    promoted_us: int | None = None
    activated_us: int | None = None
    version: int | None = None
    epoch: int | None = None
    outcome: str = "open"
    gain: float | None = None

    def as_json(self) -> dict[str, Any]:
        def seconds(later: int | None, earlier: int | None) -> float | None:
            return None if later is None or earlier is None else round((later - earlier) / 1e6, 3)

        return {
            "run_id": self.run_id,
            "trigger": self.trigger,
            "event_time": self.event_time,
            "outcome": self.outcome,
            "version": self.version,
            "epoch": self.epoch,
            "auc_gain": self.gain,
            "time_to_detect_event_seconds": self.detect_event_seconds,
            "time_to_decide_seconds": seconds(self.decided_us, self.asked_us),
            "time_to_train_seconds": seconds(self.trained_us, self.decided_us),
            "time_to_promote_seconds": seconds(self.promoted_us, self.trained_us),
            "time_to_activate_seconds": seconds(self.activated_us, self.promoted_us),
        }


@dataclass
class Seen:
    """Everything the demo has seen so far."""

    model: str
    flights: Flights
    loop_score: npt.NDArray[np.float64] = field(init=False)
    frozen_score: npt.NDArray[np.float64] = field(init=False)
    feature_us: int = 0
    monitor_us: int = 0
    turns: dict[str, Turn] = field(default_factory=dict)
    champion: dict[str, Any] | None = None
    promotions: list[tuple[int, int, str]] = field(default_factory=list)
    """(event time, version, cause)."""
    counts: Counter[str] = field(default_factory=Counter)
    last_messages: list[str] = field(default_factory=list)
    vectors_digest: int = 0
    repeated: int = 0
    last_values: list[float | None] | None = None
    first_adaptive_promotion_us: int | None = None

    def __post_init__(self) -> None:
        self.loop_score = np.full(len(self.flights.ids), np.nan)
        self.frozen_score = np.full(len(self.flights.ids), np.nan)

    @property
    def turn_open(self) -> bool:
        return any(turn.outcome == "open" for turn in self.turns.values())

    @property
    def fits(self) -> int:
        return self.counts["trainer.run-completed.v1"] + self.counts["trainer.run-failed.v1"]

    def auc(self, score: npt.NDArray[np.float64], first_us: int, last_us: int) -> tuple[float, int]:
        """(AUC, rows) over flights that departed in [first, last) and have both an outcome and a score."""
        first, last = np.searchsorted(self.flights.departure_us, [first_us, last_us])
        late, scored = self.flights.late[first:last], score[first:last]
        known = ~(np.isnan(late) | np.isnan(scored))
        late = late[known]
        if not late.any() or late.all():
            return float("nan"), int(known.sum())
        return metric_named("roc_auc").value(late, scored[known]), int(known.sum())

    def say(self, text: str) -> None:
        self.last_messages = [*self.last_messages[-7:], text]


class Watcher:
    """Follows the topics until cancelled."""

    def __init__(self, broker: str, data_dir: Path, seen: Seen) -> None:
        self._broker, self._data_dir, self.seen = broker, data_dir, seen
        self._index = {flight_id: number for number, flight_id in enumerate(seen.flights.ids)}
        self._frozen: Scorer | None = None
        self._asked: dict[str, tuple[int, float | None]] = {}
        self._packages: dict[str, str] = {}
        self._sequences: dict[tuple[bytes, bytes, str, int], int] = {}
        self.frozen_package: str | None = None

    async def follow(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._broker,
            enable_auto_commit=False,
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=2_097_152,
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(name, p) for name in _TOPICS for p in range(BY_NAME[name].partitions)]
            consumer.assign(partitions)
            for tp in partitions:
                consumer.seek(tp, 0)
            while True:
                batch = await consumer.getmany(timeout_ms=200, max_records=4000)
                for tp, records in batch.items():
                    fresh = [
                        (record, headers) for record in records if (headers := self._fresh(tp, record)) is not None
                    ]
                    match tp.topic:
                        case "feature.vector-computed.v1":
                            self._vectors(fresh)
                        case "serving.prediction-made.v1":
                            self._predictions(fresh)
                        case _:
                            for record, headers in fresh:
                                self._fact(record, headers)
                await asyncio.sleep(0)
        finally:
            await consumer.stop()

    def _fresh(self, tp: Any, record: Any) -> dict[str, bytes] | None:
        """A record's headers; None if it was seen before."""
        headers: dict[str, bytes] = dict(record.headers)
        key = (headers.get("ce_source", b""), headers.get("ce_shard", b""), tp.topic, tp.partition)
        sequence = int(headers.get("ce_sequence", b"0"))
        if sequence <= self._sequences.get(key, 0):
            self.seen.repeated += 1
            return None
        self._sequences[key] = sequence
        return headers

    def _vectors(self, records: list[tuple[Any, dict[str, bytes]]]) -> None:
        rows, positions = [], []
        for record, headers in records:
            if headers["ce_type"] in IN_BAND_TYPES:
                if headers["ce_type"] == _CLOCK:
                    times = ClockAdvanced.model_validate_json(record.value).times_us().values()
                    self.seen.feature_us = max(self.seen.feature_us, *times)
                continue
            self.seen.counts["vectors"] += 1
            # Order does not matter to a sum, so partitions may interleave as they like.
            self.seen.vectors_digest += int.from_bytes(hashlib.sha256(record.value).digest(), "big")
            if self._frozen is not None:
                vector = orjson.loads(record.value)
                rows.append(vector["values"])
                positions.append(self._index[vector["event_id"]])
        if rows:
            self.seen.last_values = rows[-1]
            assert self._frozen is not None
            self.seen.frozen_score[positions] = self._frozen.predict(np.array(rows, np.float32))

    def _predictions(self, records: list[tuple[Any, dict[str, bytes]]]) -> None:
        for record, headers in records:
            if headers["ce_type"] in IN_BAND_TYPES:
                continue
            prediction = orjson.loads(record.value)
            if prediction["origin"] == "stream":
                self.seen.counts["predictions"] += 1
                self.seen.loop_score[self._index[prediction["event_id"]]] = prediction["score"]
            else:
                self.seen.counts["request predictions"] += 1

    def _fact(self, record: Any, headers: dict[str, bytes]) -> None:
        data = orjson.loads(record.value)
        if data.get("model") != self.seen.model:
            return
        seen, at_us, event_us = (
            self.seen,
            parse_us(headers["ce_recordedtime"].decode()),
            parse_us(headers["ce_time"].decode()),
        )
        day = f"{headers['ce_time'].decode()[:10]}"
        seen.counts[record.topic] += 1
        match record.topic:
            case "monitor.window-measured.v1":
                seen.monitor_us = max(seen.monitor_us, parse_us(data["window_end"]))
            case "monitor.drift-detected.v1" | "monitor.performance-degraded.v1":
                self._asked[headers["ce_id"].decode()] = (at_us, (event_us - parse_us(data["window_end"])) / 1e6)
                seen.say(f"{day}  {record.topic.split('.')[1]}: {data['detail']}")
            case "trainer.retrain-decided.v1":
                if data["retrain"]:
                    asked_us, detect = self._asked.get(data["cause_id"], (at_us, None))
                    seen.turns[data["run_id"]] = Turn(
                        data["run_id"], data["trigger"], headers["ce_time"].decode(), asked_us, at_us, detect
                    )
                    seen.say(f"{day}  retrain: {data['trigger']}")
                else:
                    seen.counts[f"declined: {data['reason']}"] += 1
            case "trainer.run-completed.v1":
                turn = seen.turns[data["run_id"]]
                turn.trained_us = at_us
                self._packages[data["run_id"]] = data["package"]
                comparison = data.get("comparison")
                turn.gain = None if comparison is None else round(comparison["improvement"], 5)
                seen.say(
                    f"{day}  trained {data['estimator']} on {data['training_rows']:,} rows in {data['duration_seconds']:.1f} s"
                )
            case "trainer.run-failed.v1":
                seen.turns[data["run_id"]].outcome = f"failed: {data['reason']}"
                seen.say(f"{day}  training failed: {data['detail']}")
            case "registry.gate-decided.v1":
                if not data["passed"] and data["run_id"] in seen.turns:
                    seen.turns[data["run_id"]].outcome = f"refused: {data['gate']}"
                    seen.say(f"{day}  refused by {data['gate']}: {data['detail']}")
            case "registry.champion-changed.v1":
                self._champion_changed(data, at_us, event_us, day)
            case "serving.version-activated.v1":
                self._activated(data, at_us, day)
            case "serving.activation-failed.v1":
                for turn in seen.turns.values():
                    if turn.epoch == data["epoch"] and turn.outcome == "open":
                        turn.outcome = f"activation failed: {data['reason']}"
                seen.say(f"{day}  activation failed: {data['detail']}")

    def _champion_changed(self, data: dict[str, Any], at_us: int, event_us: int, day: str) -> None:
        seen = self.seen
        seen.champion = data
        seen.promotions.append((event_us, data["version"], data["cause"]))
        turn = seen.turns.get(data.get("run_id") or "")
        if turn is not None:
            turn.promoted_us, turn.version, turn.epoch = at_us, data["version"], data["epoch"]
            if turn.trigger in ("drift", "decay") and seen.first_adaptive_promotion_us is None:
                seen.first_adaptive_promotion_us = at_us
        seen.say(f"{day}  champion: version {data['version']}, epoch {data['epoch']} ({data['cause']})")
        if self._frozen is None:
            package = read_package(
                self._data_dir / "artifacts", data["package"], verification_keys(self._data_dir / "keys")
            )
            self._frozen, self.frozen_package = Scorer(package), data["package"]

    def _activated(self, data: dict[str, Any], at_us: int, day: str) -> None:
        for turn in self.seen.turns.values():
            if turn.epoch == data["epoch"] and turn.outcome == "open":
                turn.activated_us, turn.outcome = at_us, "activated"
        self.seen.say(f"{day}  version {data['version']} answers on {data['replica']}")


def weekly_auc(seen: Seen, score: npt.NDArray[np.float64], first_us: int, last_us: int) -> list[tuple[int, float]]:
    """(middle of the week, AUC) for each week of the span."""
    weeks = range(first_us, last_us - 7 * DAY_US + 1, 7 * DAY_US)
    return [(week + 7 * DAY_US // 2, seen.auc(score, week, week + 7 * DAY_US)[0]) for week in weeks]
