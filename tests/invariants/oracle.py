"""The oracle from outside: it knows the topics' public contracts and nothing of our code.

It reads with another Kafka client (confluent-kafka, on librdkafka), over the public HTTP APIs, and from files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Violation:
    """A promise that does not hold: which one (guarantees, section 8), and what was seen."""

    invariant: int
    detail: str


class Oracle:
    """Reads a system that has come to rest.

    `sent`: raw topic → ids of the records that the producer sent and that were acknowledged. Without `urls` and `token`
    what only HTTP can tell is not checked.
    """

    def __init__(
        self,
        broker: str,
        data_dir: Path,
        urls: Mapping[str, str] = {},  # noqa: B006 - never changed
        token: str | None = None,
        sent: Mapping[str, Collection[bytes]] | None = None,
    ) -> None:
        self.broker, self.data_dir, self.urls, self.token, self.sent = broker, Path(data_dir), dict(urls), token, sent

    def violations(self) -> list[Violation]:
        """All that can be seen at rest."""
        return []
