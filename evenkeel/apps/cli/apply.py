"""`evenkeel apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenkeel.apps.cli.client import client_of
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.contracts.http.registry import DeclarationProblem
from evenkeel.libs.client.errors import CallRefused
from evenkeel.libs.errors import EvenkeelError


def apply(
    file: Annotated[Path, typer.Argument(help="A declaration: streams and models, in YAML.")],
    data_dir: DataDir = Path(".evenkeel"),
    url: Annotated[str | None, typer.Option(help="Registry's address, if it is not this machine's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and say what would change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Declare streams and models. What is as it was is not said again."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise EvenkeelError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise EvenkeelError(f"{file} is not UTF-8: save it as UTF-8") from None
    try:
        with client_of(data_dir, {"registry": url}) as client:
            answer = client.registry.apply(text, filename=file.name, dry_run=dry_run)
    except CallRefused as error:
        raise EvenkeelError(_faults(error)) from None
    if as_json:
        print(answer.model_dump_json())
        return
    named = ", ".join([f"stream {name}" for name in answer.streams] + [f"model {name}" for name in answer.models])
    if dry_run:
        print(f"{file}: valid, " + (f"would declare {named}" if named else "nothing would change"))
    else:
        print(f"{file}: " + (f"{named} declared" if named else "nothing has changed"))


def _faults(error: CallRefused) -> str:
    """Every fault of a declaration, one a line."""
    if not isinstance(error.problem, DeclarationProblem) or not error.problem.problems:
        return str(error)
    return "\n".join(f"line {p.line}, {p.field}: {p.message}; {p.fix}" for p in error.problem.problems)
