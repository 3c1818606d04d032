"""What governance's handlers see: the log, the key that signs it, and the file its checkpoints are anchored in."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from evenkeel.contracts.envelope import Record
from evenkeel.libs.audit.anchor import Anchor, anchor_path
from evenkeel.libs.audit.log import AuditLog, Run, add_runs, checkpoint_notes, duplicate_count, head, runs_between
from evenkeel.libs.errors import Retry
from evenkeel.libs.keys import SigningKey, signing_key
from evenkeel.libs.service import Context
from evenkeel.libs.store.protocol import Transaction
from evenkeel.services.governance.domain.facts import Opaque, topics_with_facts
from evenkeel.services.governance.settings import GovernanceSettings
from evenkeel.services.governance.store import GovernanceStore

log = structlog.get_logger(__name__)


class GovernanceContext(Context):
    """`size` and `signed_size` are leaves; the log keeps what else it needs to append."""

    own: GovernanceSettings
    key: SigningKey

    def __init__(self) -> None:
        self.log = AuditLog()
        self.origin = ""
        self.topics_with_facts = topics_with_facts()
        self.size = self.signed_size = self.duplicates = 0
        self.opaque = 0
        """Records of the control plane that could not be read, since the start."""
        self.signed_us = 0
        """Wall time of the last checkpoint, 0 before the first of this process."""
        self.order: list[Run] = []
        """The leaves since the newest checkpoint."""
        self._anchor: Anchor | None = None
        self._signed: list[bytes] = []
        self._opaque: list[tuple[int, Opaque]] = []

    @property
    def store(self) -> GovernanceStore:
        return GovernanceStore(self.tx.connection)

    def load(self, tx: Transaction) -> None:
        """Read the log's state; anchor the checkpoints that were committed but not written to the file."""
        connection = tx.connection
        self.log.open(connection)
        self.origin = GovernanceStore(connection).origin()
        self.key = signing_key(self.settings.keys, self.service)
        notes = checkpoint_notes(connection)
        self.size, self.signed_size = head(connection).size, notes[-1][0] if notes else 0
        self.duplicates = duplicate_count(connection)
        self.order = list(runs_between(connection, self.signed_size, self.size))
        self._signed, self._opaque = [], []
        try:
            self._anchor = Anchor(anchor_path(self.settings.data_dir, self.origin))
            anchored = self._anchor.last_size
            self._anchor.append([note for size, note in notes if size > anchored])
        except OSError as error:
            raise Retry(f"checkpoints cannot be anchored: {error}") from error

    def appended(self, records: Sequence[Record]) -> None:
        """The log has grown by these records."""
        unsigned = records[max(0, self.signed_size - self.size) :]
        add_runs(self.order, ((record.topic, record.partition) for record in unsigned))
        self.size += len(records)

    def signed(self, size: int, note: bytes) -> None:
        """A checkpoint of the transaction at hand; the file may not run ahead of the store, so it waits for the commit."""
        self.signed_size, self.signed_us, self.order = size, self.now_us, []
        self._signed.append(note)

    def not_understood(self, leaf: int, why: Opaque) -> None:
        """A record of the control plane says nothing that can be looked up; people hear of it once it is committed."""
        self._opaque.append((leaf, why))

    def committed(self) -> None:
        opaque, self._opaque = self._opaque, []
        self.opaque += len(opaque)
        for leaf, why in opaque:
            log.warning("logged without being understood", leaf=leaf, error=str(why))
        signed, self._signed = self._signed, []
        if signed and self._anchor is not None:
            try:
                self._anchor.append(signed)
            except OSError as error:
                raise Retry(f"checkpoints cannot be anchored: {error}") from error
