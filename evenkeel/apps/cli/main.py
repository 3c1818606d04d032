"""The console script. To add a command: a function (or a typer app) in a module of its own, and one row below."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from evenkeel.libs.errors import EvenkeelError

COMMANDS: Final = {
    # name: (module:attribute, what the help says); the module is imported when its command is called
    "up": ("evenkeel.apps.cli.lifecycle:up", "Start the broker and the seven services, watch them, restart what died."),
    "down": ("evenkeel.apps.cli.lifecycle:down", "Stop a running `evenkeel up`; everything in the data folder stays."),
    "reset": ("evenkeel.apps.cli.lifecycle:reset", "Delete the data folder: topics, databases, models, keys."),
    "apply": ("evenkeel.apps.cli.apply:apply", "Declare the streams and models of a YAML file."),
    "status": (
        "evenkeel.apps.cli.status:status",
        "Services, lag, champions, jobs, alerts and last decisions on one screen.",
    ),
    "doctor": (
        "evenkeel.apps.cli.doctor:doctor",
        "Look for what is wrong with this machine and data folder, and say what to do.",
    ),
    "trace": ("evenkeel.apps.cli.trace:trace", "Follow an event, a prediction or a turn of the loop through the log."),
    "loop": ("evenkeel.apps.cli.loop:app", "Pause and resume retraining."),
    "rejected": ("evenkeel.apps.cli.rejected:app", "List, show and send again what broke a stream's contract."),
    "parked": ("evenkeel.apps.cli.parked:app", "List and release what an ordered handler could not take."),
    "rebuild": (
        "evenkeel.apps.cli.rebuild:rebuild",
        "Make a lost or outdated store of one service again, from the topics.",
    ),
    "verify": ("evenkeel.apps.cli.verify:verify", "Check the audit log offline: every byte, every checkpoint."),
    "demo": ("evenkeel.apps.demo.command:demo", "Carry a year of real flights through the whole loop."),
    "topics": ("evenkeel.apps.cli.topics:topics", "Make the map's topics on a Kafka of yours; `up` does it by itself."),
}


class Commands(TyperGroup):
    """Imports a command's module only to run it, so that the help is quick."""

    def __init__(self, **options: Any) -> None:
        options["commands"] = {name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}
        super().__init__(**options)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            module, _, attribute = COMMANDS[args[0]][0].partition(":")
            target = getattr(import_module(module), attribute)
            if not isinstance(target, typer.Typer):
                single = typer.Typer(add_completion=False)
                single.command()(target)
                target = single
            self.commands[args[0]] = typer.main.get_command(target)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        as_json = "--json" in ctx.args
        try:
            return super().invoke(ctx)
        except EvenkeelError as error:
            if as_json:
                print(json.dumps({"error": str(error)}))
            else:
                print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from error


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def evenkeel() -> None:
    """Keeps machine-learning models on an even keel: seven services that speak through Kafka."""


if __name__ == "__main__":
    app()
