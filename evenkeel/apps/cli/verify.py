"""`evenkeel verify`: the audit log checked offline, from the database and the public key alone."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evenkeel.libs.audit.anchor import FOLDER, anchored_notes
from evenkeel.libs.audit.checkpoint import CheckpointError, read_checkpoint
from evenkeel.libs.errors import EvenkeelError
from evenkeel.libs.extras import require_extras
from evenkeel.libs.keys import read_verification_key
from evenkeel.libs.settings import Settings

if TYPE_CHECKING:
    from evenkeel.libs.audit.verify import Progress as OnProgress
    from evenkeel.libs.audit.verify import VerifyReport

_SHOWN_FROM_LEAVES: Final = 50_000


class NothingToVerify(EvenkeelError):
    """There is no log, or no key to check it with; the message names what is missing."""


def verify(
    data_dir: Annotated[Path, typer.Option("--data-dir", envvar="EVENKEEL_DATA_DIR", help="The data folder.")] = Path(
        ".evenkeel"
    ),
    database: Annotated[
        str | None,
        typer.Option(envvar="EVENKEEL_DATABASE_URL", help="Governance's database, if it is not in the data folder."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Governance's public key; without it, `keys/governance.pub` in the data folder.")
    ] = None,
    trusted: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint you kept; without it, `checkpoints/trusted` in the data folder. Replaced if all is well."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check that nothing in the audit log was altered, removed, reordered or left out. Needs no running service."""
    require_extras("evenkeel verify", "sql")
    console = Console(stderr=True)
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task("leaves", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=total >= _SHOWN_FROM_LEAVES)

        report = verify_data_folder(data_dir, database=database, key=key, trusted=trusted, progress=show)
    if as_json:
        print(json.dumps(report))
    else:
        for line in _lines(report):
            print(line)
    if not report["ok"]:
        raise typer.Exit(1)


def verify_data_folder(
    data_dir: Path,
    *,
    database: str | None = None,
    key: Path | None = None,
    trusted: Path | None = None,
    progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Verify governance's log and, if all is well, remember its newest checkpoint as the trusted one.

    Returns a JSON object; `ok` is false and `problems` says what and where if something is wrong. Raises EvenkeelError
    if there is nothing to verify.
    """
    import sqlalchemy as sa

    from evenkeel.libs.audit.verify import read_trusted, verify_log, write_trusted

    settings = Settings(data_dir=data_dir)
    key_path = key or settings.keys / "governance.pub"
    trusted_path = trusted or data_dir / FOLDER / "trusted"
    if not key_path.exists():
        raise NothingToVerify(
            f"{key_path} does not exist: governance makes its key at its first start; name the data folder with "
            "--data-dir, or the public key with --key"
        )
    verification_key = read_verification_key(key_path)
    kept = read_trusted(trusted_path)
    started = time.monotonic()
    try:
        found = verify_log(
            database or settings.database("governance"),
            verification_key,
            kept,
            anchored=anchored_notes(data_dir),
            progress=progress,
        )
    except FileNotFoundError as error:
        raise NothingToVerify(f"{error}, or the data folder with --data-dir") from error
    except sa.exc.DBAPIError as error:
        message = f"the database cannot be read: {error.orig}"
        return {"ok": False, "problem_count": 1, "problems": [{"kind": "database", "leaf": None, "message": message}]}
    seconds = time.monotonic() - started
    if found.ok and found.last_checkpoint is not None:
        write_trusted(trusted_path, found.last_checkpoint)
    return _as_json(found, seconds) | {
        "trusted": {
            "file": str(trusted_path),
            "size_before": _size(kept),
            "size": found.signed_size if found.ok else None,
        }
    }


def _size(note: bytes | None) -> int | None:
    if note is None:
        return None
    try:
        return read_checkpoint(note).size
    except CheckpointError:
        return None


def _as_json(found: VerifyReport, seconds: float) -> dict[str, Any]:
    return {
        "ok": found.ok,
        "leaves": found.size,
        "signed_leaves": found.signed_size,
        "root": b64encode(found.root).decode(),
        "checkpoints": found.checkpoints,
        "duplicates": found.duplicates,
        "partitions": len(found.offsets),
        "seconds": round(seconds, 3),
        "leaves_per_second": round(found.size / seconds) if seconds else None,
        "problem_count": found.problem_count,
        "problems": [{"kind": p.kind, "leaf": p.leaf, "message": p.message} for p in found.problems],
    }


def _lines(report: dict[str, Any]) -> list[str]:
    lines = []
    if "leaves" in report:
        lines.append(
            f"{report['leaves']:,} records of {report['partitions']} partitions, {report['signed_leaves']:,} of them under "
            f"{report['checkpoints']:,} signed checkpoints, {report['duplicates']:,} repeated, in {report['seconds']:.1f} s"
        )
        lines.append(f"root {report['root']}")
    if report["ok"]:
        kept = report["trusted"]
        before = "none was kept" if kept["size_before"] is None else f"{kept['size_before']:,} leaves before"
        lines.append(
            f"trusted checkpoint: {kept['file']}, now over {kept['size']:,} leaves ({before}); keep a copy elsewhere"
        )
        lines.append("verified: nothing was altered, removed, reordered or left out")
        return lines
    lines += [f"{problem['kind']}: {problem['message']}" for problem in report["problems"]]
    more = report["problem_count"] - len(report["problems"])
    if more > 0:
        lines.append(f"… and {more:,} more")
    return [*lines, f"NOT verified: {report['problem_count']:,} problem(s)"]
