"""`evenkeel rejected`: look at what broke a stream's contract, and send it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from evenkeel.apps.cli.client import client_of
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.libs.client.clients import Client
from evenkeel.libs.errors import EvenkeelError

PAGE: Final = 1000

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
    with client_of(data_dir, {"ingest": url}) as client:
        records = client.ingest.rejected(stream=stream, rule=rule, limit=limit).rejected
    if as_json:
        for record in records:
            print(record.model_dump_json())
        return
    if not records:
        print("nothing was rejected")
        return
    table = Table("number", "time", "stream", "rule", "field", "id", "reason", box=None, header_style="bold")
    for record in records:
        shown = (record.number, record.time, record.stream, record.rule, record.field, record.event_id, record.reason)
        table.add_row(*("" if value is None else str(value) for value in shown))
    Console(highlight=False, markup=False).print(table)


@app.command()
def show(number: Number, data_dir: DataDir = Path(".evenkeel"), url: Url = None, as_json: AsJson = False) -> None:
    """One rejected record, as it came."""
    with client_of(data_dir, {"ingest": url}) as client:
        record = client.ingest.rejected_record(number)
    if as_json:
        print(record.model_dump_json())
        return
    raw, text = record.raw, record.original_text
    print(f"stream   {record.stream} ({record.kind})")
    print(f"came     {raw.topic}/{raw.partition}/{raw.offset}")
    print(f"rule     {record.rule}" + (f", field {record.field}" if record.field else ""))
    print(f"reason   {record.reason}")
    print(f"fix      {record.fix}")
    print(f"value    {text if text is not None else record.original_value or 'not kept'}")


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
    with client_of(data_dir, {"ingest": url}) as client:
        wanted = sorted(numbers or _all(client, stream, rule))
        for done, number in enumerate(wanted, 1):
            sent = client.ingest.redrive(number)
            to = sent.sent_to
            line = f"{done} of {len(wanted)}: {number} sent again to {to.topic}/{to.partition}"
            print(sent.model_dump_json() if as_json else line)
    if not wanted and not as_json:
        print("nothing was rejected by that")


def _all(client: Client, stream: str | None, rule: str | None) -> list[int]:
    numbers: list[int] = []
    before: int | None = None
    while True:
        answer = client.ingest.rejected(stream=stream, rule=rule, before=before, limit=PAGE)
        numbers += [record.number for record in answer.rejected]
        before = answer.before
        if before is None:
            return numbers
