"""`make bench`: measures Evenkeel beside what users would pick instead, in turns, and writes docs/benchmarks.md.

Everything it makes lies in `bench` below the data folder: the peers' environments stay there for the next run, and so do
the figures, so that `--only` replaces the ones it measures and leaves the others on the page as they were.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from evenkeel.libs.errors import EvenkeelError
from tests.bench.bench import Bench, machine
from tests.bench.figures import Result, page

BENCHES: Final = ("serving", "ingest", "windows", "drift", "registry", "pipeline")
PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default=",".join(BENCHES), help=f"some of {','.join(BENCHES)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contestant takes its turn (default: 3)")
    parser.add_argument(
        "--keys", type=counts, default=Bench.keys, help="for the pipeline (default: 10000,100000; a million takes long)"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page is written")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    unknown = [name for name in names if name not in BENCHES]
    if unknown or arguments.rounds < 1:
        parser.error(f"there is no benchmark {unknown[0]!r}" if unknown else "at least one round is needed")
    folder = Path(os.environ.get("EVENKEEL_DATA_DIR", ".evenkeel")).absolute() / "bench"
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a new topic's leader is not there at once
    started = time.perf_counter()
    failed = []
    for name in names:
        try:
            measure(name, arguments.rounds, arguments.keys, folder, started)
        except (EvenkeelError, AssertionError, OSError) as error:
            print(f"{time.perf_counter() - started:6.0f} s  {name}: failed: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    arguments.page.write_text(page(kept(folder)))
    print(f"{time.perf_counter() - started:6.0f} s  {arguments.page} is written")
    if failed:
        sys.exit(f"error: no new figures of {', '.join(failed)}; what they wrote is below {folder}")


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers with commas; argparse shows the text if they are not."""
    return tuple(int(number) for number in text.split(","))


def measure(name: str, rounds: int, keys: tuple[int, ...], folder: Path, started: float) -> None:
    """Run one benchmark and keep its figures."""
    module = import_module(f"tests.bench.{name}")
    chosen = f" --keys {','.join(map(str, keys))}" if name == "pipeline" and keys != Bench.keys else ""
    result = Result(
        name=name,
        title=module.TITLE,
        method=module.METHOD,
        command=f"make bench BENCH_ARGS='--only {name} --rounds {rounds}{chosen}'",
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        rounds=rounds,
        machine=machine(),
        targets=list(module.TARGETS),
        notes=list(getattr(module, "NOTES", ())),
    )
    bench = Bench(result, folder / "runs" / name, folder / "peers", started)
    bench.keys = keys
    uvloop.run(module.run(bench))
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_bytes(msgspec.json.encode(result))


def kept(folder: Path) -> dict[str, Result]:
    """The latest figures of each benchmark that has any."""
    paths = {name: folder / "results" / f"{name}.json" for name in BENCHES}
    return {name: msgspec.json.decode(path.read_bytes(), type=Result) for name, path in paths.items() if path.exists()}


if __name__ == "__main__":
    main()
