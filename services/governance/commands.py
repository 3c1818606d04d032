"""What is asked for beside the records: a signature."""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel.libs.service import Reply
from evenkeel.services.governance.context import GovernanceContext
from evenkeel.services.governance.handlers import sign


@dataclass(frozen=True, slots=True)
class SignNow:
    """Sign the log as it stands, however old the last checkpoint is."""


def on_sign_now(command: SignNow, ctx: GovernanceContext) -> Reply[None]:
    """Nothing to sign if the log has not grown."""
    return Reply(None, tuple(sign(ctx)))
