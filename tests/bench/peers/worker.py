"""For programs that measure on demand: answers each line of JSON with one. Whatever else is printed goes to the log."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(step: Callable[[dict[str, Any]], dict[str, float]]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(step(json.loads(line))), file=answers, flush=True)


def median_ms(work: Callable[[], object], seconds: float) -> dict[str, float]:
    """Median time of one call, over as many as fit into the time, three at least."""
    work()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e3)
    times.sort()
    return {"ms": times[len(times) // 2], "calls": len(times)}
