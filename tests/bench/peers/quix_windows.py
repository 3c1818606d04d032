"""quixstreams, sliding windows: count, sum, mean and standard deviation over 1 m, 1 h and 24 h per customer, one fold per
window, its state in RocksDB with changelog topics. Arguments: broker, topic in, topic out, count, folder, group."""

import json
import resource
import sys
from datetime import datetime, timedelta
from math import sqrt
from typing import Any

from quixstreams import Application


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def time_ms(value: Any, headers: Any, timestamp: float, timestamp_type: Any) -> int:
    return int(datetime.fromisoformat(value["ordered_at"]).timestamp() * 1000)


def begin(value: Any) -> list[float]:
    return [1, value["amount"], value["amount"], 0.0]


def fold(state: list[float], value: Any) -> list[float]:
    """Welford: count, sum, mean, sum of squared differences."""
    n, total, mean, m2 = state
    amount = value["amount"]
    n += 1
    delta = amount - mean
    mean += delta / n
    return [n, total + amount, mean, m2 + delta * (amount - mean)]


def answer(window: Any) -> dict[str, float | None]:
    n, total, mean, m2 = window["value"]
    return {"count": n, "sum": total, "mean": mean, "std": sqrt(m2 / (n - 1)) if n > 1 else None}


broker, source, target, count, folder, group = sys.argv[1:7]
app = Application(
    broker_address=broker, consumer_group=group, auto_offset_reset="earliest", loglevel="ERROR", state_dir=folder
)
out = app.topic(target, value_serializer="json")
stream = app.dataframe(app.topic(source, value_deserializer="json", timestamp_extractor=time_ms))
for length in (timedelta(minutes=1), timedelta(hours=1), timedelta(hours=24)):
    windows = stream.sliding_window(length, grace_ms=timedelta(0)).reduce(reducer=fold, initializer=begin).current()
    windows.apply(answer).to_topic(out)
before = cpu_seconds()
app.run(count=3 * int(count), timeout=30)  # counts results
print(json.dumps({"cpu_seconds": cpu_seconds() - before}))
