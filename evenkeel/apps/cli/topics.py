"""`evenkeel topics`."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from evenkeel.contracts.topics import TOPICS
from evenkeel.libs.bus.topics import create_map_topics


def topics(
    broker: Annotated[
        str, typer.Option(envvar=["BROKER", "EVENKEEL_BROKER"], help="host:port of the Kafka to make them on.")
    ] = "127.0.0.1:9092",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the topics of the map that are missing, with their settings. `evenkeel up` does this by itself."""
    asyncio.run(create_map_topics(broker))
    names = [topic.name for topic in TOPICS]
    print(json.dumps({"broker": broker, "topics": names}) if as_json else f"{len(names)} topics are there on {broker}")
