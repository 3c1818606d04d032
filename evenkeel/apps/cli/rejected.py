"""`evenkeel rejected`: look at what broke a stream's contract, and send it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from evenkeel.apps.cli.client import call
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.libs.errors import EvenkeelError

app = typer.Typer(no_args_is_help=True, add_completion=False)

Stream = Annotated[str | None, typer.Option(help="Only of this stream.")]
Rule = Annotated[
    str | None, typer.Option(help="Only by this rule; `duplicate` shows repeats, which are left out else.")
]
Url = Annotated[str | None, typer.Option(help="Ingest's address, if it is not this machine's.")]
Number = Annotated[int, typer.Argument(help="As `evenkeel rejected list` shows it.")]


@app.command("list")
def list_rejected(
    stream: Stream = None,
    rule: Rule = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 50,
    data_dir: DataDir = Path(".evenkeel"),
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Rejected records, the newest first."""
    answer = call("ingest", "GET", "/v1/rejected", data_dir, url, params=_given(stream=stream, rule=rule, limit=limit))
    if as_json:
        for record in answer["rejected"]:
            print(json.dumps(record))
        return
    if not answer["rejected"]:
        print("nothing was rejected")
        return
    table = Table("number", "time", "stream", "rule", "field", "id", "reason", box=None, header_style="bold")
    for record in answer["rejected"]:
        shown = ("number", "time", "stream", "rule", "field", "event_id", "reason")
        table.add_row(*(str(record[name] if record[name] is not None else "") for name in shown))
    Console(highlight=False, markup=False).print(table)


@app.command()
def show(number: Number, data_dir: DataDir = Path(".evenkeel"), url: Url = None, as_json: AsJson = False) -> None:
    """One rejected record, as it came."""
    record = call("ingest", "GET", f"/v1/rejected/{number}", data_dir, url)
    if as_json:
        print(json.dumps(record))
        return
    raw = record["raw"]
    print(f"stream   {record['stream']} ({record['kind']})")
    print(f"came     {raw['topic']}/{raw['partition']}/{raw['offset']}")
    print(f"rule     {record['rule']}" + (f", field {record['field']}" if record["field"] else ""))
    print(f"reason   {record['reason']}")
    print(f"fix      {record['fix']}")
    text = record["original_text"]
    print(f"value    {text if text is not None else record['original_value'] or 'not kept'}")


@app.command()
def redrive(
    numbers: Annotated[list[int] | None, typer.Argument(help="As `evenkeel rejected list` shows them.")] = None,
    stream: Stream = None,
    rule: Rule = None,
    data_dir: DataDir = Path(".evenkeel"),
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Send the original records again, byte for byte: these, or all of a stream and rule. A repeat changes nothing."""
    if bool(numbers) == bool(stream or rule):
        raise EvenkeelError("say which: numbers, or --stream and --rule")
    wanted = sorted(numbers or _all(stream, rule, data_dir, url))
    for done, number in enumerate(wanted, 1):
        sent = call("ingest", "POST", f"/v1/rejected/{number}/redrive", data_dir, url)
        if as_json:
            print(json.dumps(sent))
        else:
            to = sent["sent_to"]
            print(f"{done} of {len(wanted)}: {number} sent again to {to['topic']}/{to['partition']}")
    if not wanted and not as_json:
        print("nothing was rejected by that")


def _all(stream: str | None, rule: str | None, data_dir: Path, url: str | None) -> list[int]:
    numbers: list[int] = []
    before: int | None = None
    while True:
        given = _given(stream=stream, rule=rule, before=before, limit=1000)
        answer = call("ingest", "GET", "/v1/rejected", data_dir, url, params=given)
        numbers += [record["number"] for record in answer["rejected"]]
        before = answer["before"]
        if before is None:
            return numbers


def _given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}
