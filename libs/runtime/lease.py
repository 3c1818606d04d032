"""The lease of a store: whoever holds it is the one instance that writes."""

from __future__ import annotations

from typing import Final

from evenkeel.libs.clock import SECOND_US, Clock
from evenkeel.libs.process.instance import is_gone
from evenkeel.libs.store.protocol import Store, Transaction

LEASE_US: Final = 6 * SECOND_US


class Lease:
    """Belongs to the writer thread."""

    def __init__(self, store: Store, clock: Clock, owner: str) -> None:
        self._store, self._clock, self._owner = store, clock, owner
        self._epoch = 0

    def take(self) -> bool:
        """False while another instance holds it that is not known to be gone."""
        epoch = self._store.take_lease(self._owner, self._clock.now_us(), LEASE_US, is_gone)
        if epoch is not None:
            self._epoch = epoch
        return epoch is not None

    def hold(self, tx: Transaction) -> None:
        """Extend it with this transaction; raises Fenced if it is somebody else's now."""
        tx.hold_lease(self._owner, self._epoch, self._clock.now_us() + LEASE_US)

    def release(self) -> None:
        self._store.release_lease(self._owner, self._epoch)
