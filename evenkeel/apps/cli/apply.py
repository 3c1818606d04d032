"""`evenkeel apply`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evenkeel.apps.cli.client import call
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.libs.errors import EvenkeelError


def apply(
    file: Annotated[Path, typer.Argument(help="A declaration: streams and models, in YAML.")],
    data_dir: DataDir = Path(".evenkeel"),
    url: Annotated[str | None, typer.Option(help="Registry's address, if it is not this machine's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Declare streams and models. What is as it was is not said again."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise EvenkeelError(f"{file} cannot be read: {error.strerror}") from None
    path = "/v1/declarations" + ("?dry_run=true" if dry_run else "")
    headers = {"content-type": "application/yaml", "x-filename": file.name}
    answer = call("registry", "POST", path, data_dir, url, content=text, headers=headers)
    if as_json:
        print(json.dumps(answer))
    elif dry_run:
        print(f"{file}: valid")
    else:
        named = [f"stream {name}" for name in answer["streams"]] + [f"model {name}" for name in answer["models"]]
        print(f"{file}: " + (", ".join(named) + " declared" if named else "nothing has changed"))
