"""What the writer of training tables comes back with."""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel.libs.service import Reply
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.handlers import dataset_committed
from evenkeel.services.feature.store import Commit


@dataclass(frozen=True, slots=True)
class AnnounceDataset:
    """The training table has this commit, as this version."""

    commit: Commit
    version: int


def on_announce_dataset(command: AnnounceDataset, ctx: FeatureContext) -> Reply[bool]:
    """Announce it, and forget its staging; False if the model was declared anew meanwhile."""
    commit, version = command.commit, command.version
    staged = ctx.store.commit(commit.model, commit.sequence)
    if staged is None or staged.version is not None:
        return Reply(False)
    return Reply(True, [dataset_committed(commit, version, ctx.store.announce(commit, version))])
