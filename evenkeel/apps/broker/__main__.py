"""Run the embedded broker in the foreground: `python -m evenkeel.apps.broker --data-dir .evenkeel --port 9092`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from evenkeel.apps.broker.embedded import EmbeddedKafka, EmbeddedKafkaError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker in the foreground until SIGTERM, SIGINT or its own end."""
    parser = argparse.ArgumentParser(prog="python -m evenkeel.apps.broker", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path(".evenkeel"))
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--prepare", action="store_true", help="only download what it needs and prepare quick starts")
    options = parser.parse_args(arguments)
    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    kafka = EmbeddedKafka(options.data_dir, options.port, on_progress=lambda message: print(message, flush=True))
    try:
        if options.prepare:
            kafka.prepare_quick_start()
            return 0
        kafka.start()
    except EmbeddedKafkaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"ready {kafka.address} pid {kafka.pid}", flush=True)
    while not asked_to_stop.is_set():
        if kafka.wait(0.2):
            print(f"error: Kafka ended by itself, see {kafka.log}", file=sys.stderr)
            return 1
    kafka.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
