"""`python -m tests.chaos --cycles 300 --seed 1`: faults at random, under load, and what became of every record."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.chaos.run import Report, run

BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
RATE: Final = 150.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=RATE, help="events and labels a second while they flow")
    parser.add_argument("--data-dir", type=Path, help="kept; without it, a temporary one that is kept on a violation")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--table", type=Path, help="write the table between the marks of this file")
    options = parser.parse_args()
    folder = options.data_dir or Path(tempfile.mkdtemp(prefix="evenkeel-chaos-"))
    report = asyncio.run(
        run(folder, options.cycles, options.seed, options.rate, lambda text: print(text, file=sys.stderr, flush=True))
    )
    print(report.as_json() if options.json else report.text())
    if options.table is not None:
        _write_table(options.table, report, options.rate)
    if report.violations:
        print(f"the data folder is kept: {folder}", file=sys.stderr)
        return 1
    if options.data_dir is None:
        shutil.rmtree(folder)
    return 0


def _write_table(path: Path, report: Report, rate: float) -> None:
    """Replace what stands between the marks."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"{path} has no lines {BEGIN} and {END}: add them where the table belongs")
    own = "" if rate == RATE else f" --rate {rate:g}"
    violations = "\n".join(f"- {violation}" for violation in report.violations) or "No violations."
    text = (
        f"`python -m tests.chaos --cycles {len(report.cycles)} --seed {report.seed}{own}`: "
        f"{report.records} acknowledged records, {report.predictions} answered predictions, "
        f"{report.champions} champions, {report.chaos_seconds / max(1, len(report.cycles)):.1f} s a cycle.\n\n"
        f"{report.table()}\n\n{violations}"
    )
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
