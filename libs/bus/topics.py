"""Makes the map's topics on a broker: `python -m evenkeel.libs.bus.topics HOST:PORT`. Safe to repeat."""

from __future__ import annotations

import asyncio
import sys

from evenkeel.contracts.topics import TOPICS
from evenkeel.libs.bus.kafka import KafkaBus


async def create_map_topics(broker: str) -> None:
    """Create the map's topics that are missing; raises Retry while the broker does not answer."""
    await KafkaBus(broker, "evenkeel-topics").create_topics(TOPICS)


if __name__ == "__main__":
    asyncio.run(create_map_topics(sys.argv[1]))
