"""What the trainer's handlers see."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from evenkeel.contracts.declaration import ModelSpec
from evenkeel.contracts.trainer import RetrainDecided
from evenkeel.libs.service import Context
from evenkeel.services.trainer.settings import TrainerSettings
from evenkeel.services.trainer.store import ModelRow, TrainerStore


class TrainerContext(Context):
    """Everything is in the store."""

    own: TrainerSettings
    _answered: set[str] | None = None

    def __init__(self) -> None:
        self._specs: dict[str, tuple[int, ModelSpec]] = {}
        """Model → offset of its declaration, and what that says."""

    def spec(self, row: ModelRow) -> ModelSpec:
        """What a model's declaration says, read once for each; raises ValidationError."""
        known = self._specs.get(row.name)
        if known is None or known[0] != row.declaration:
            known = self._specs[row.name] = (row.declaration, ModelSpec.model_validate(row.spec))
        return known[1]

    @property
    def store(self) -> TrainerStore:
        return TrainerStore(self.tx.connection)

    def has_answered(self, cause_id: str) -> bool:
        """While the store is rebuilt: whether this trigger was answered before."""
        if not self.published_before:
            return False
        if self._answered is None:
            self._answered = {e.data.cause_id for e in self.published_before if isinstance(e.data, RetrainDecided)}
        return cause_id in self._answered

    @property
    def code_commit(self) -> str:
        """What packages record: the setting, the checkout's commit, or the installed release."""
        return self.own.code_commit or _checkout_commit() or f"evenkeel-{metadata.version('evenkeel')}"


def _checkout_commit() -> str | None:
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        loose = git / reference
        if loose.exists():
            return loose.read_text().strip()
        packed = (line.split() for line in (git / "packed-refs").read_text().splitlines())
        return next((parts[0] for parts in packed if parts[1:] == [reference]), None)
    except OSError:
        return None
