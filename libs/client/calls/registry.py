"""What can be asked of registry."""

from __future__ import annotations

from collections.abc import Mapping

from evenkeel.contracts.http import registry
from evenkeel.libs.client.calls.operations import Operations
from evenkeel.libs.client.exchange import Call, call_of
from evenkeel.libs.client.operation import C_co, operation


class Registry(Operations[C_co]):
    """Declarations, versions, champions."""

    service = "registry"

    @operation
    def apply(
        self, declaration: str, *, filename: str = "declaration", dry_run: bool = False
    ) -> Call[registry.Applied]:
        """Declare streams and models, in YAML; with `dry_run`, only say what would change."""
        call = call_of(self.service, registry.APPLY, query=registry.ApplyQuery(dry_run=dry_run))
        # A header holds Latin-1 only.
        name = filename.encode("ascii", "backslashreplace").decode()
        return _with_content(call, declaration.encode(), {"content-type": "application/yaml", "x-filename": name})

    @operation
    def declaration_schema(self) -> Call[registry.JsonSchema]:
        """The JSON Schema of declarations."""
        return call_of(self.service, registry.SCHEMA)

    @operation
    def streams(self) -> Call[registry.DeclaredStreams]:
        """Every stream's contract as it was declared last."""
        return call_of(self.service, registry.STREAMS)

    @operation
    def models(self) -> Call[registry.DeclaredModels]:
        """Every model's declaration, and which version answers."""
        return call_of(self.service, registry.MODELS)

    @operation
    def model(self, model: str) -> Call[registry.DeclaredModel]:
        """One model's declaration, and which version answers."""
        return call_of(self.service, registry.MODEL, model=model)

    @operation
    def versions(self, model: str) -> Call[registry.Versions]:
        """Every registered package, with its evidence and its gates."""
        return call_of(self.service, registry.VERSIONS, model=model)

    @operation
    def champion(self, model: str) -> Call[registry.ChampionHistory]:
        """The champion, and every one before it."""
        return call_of(self.service, registry.CHAMPION, model=model)

    @operation
    def approvals(self, model: str) -> Call[registry.Approvals]:
        """A model's requests for approval."""
        return call_of(self.service, registry.APPROVALS, model=model)

    @operation
    def approve(
        self, model: str, *, nonce: str, package: str, approved: bool, approver: str, comment: str = ""
    ) -> Call[registry.ApprovalResult]:
        """Answer a request for approval."""
        body = registry.ApprovalRequest(
            nonce=nonce, package=package, approved=approved, approver=approver, comment=comment
        )
        return call_of(self.service, registry.APPROVE, body=body, model=model)

    @operation
    def rollback(
        self, model: str, *, epoch: int | None = None, reason: str = "by hand"
    ) -> Call[registry.RollbackResult]:
        """Take the champion out of service; of another epoch than the named one, nothing changes."""
        body = registry.RollbackRequest(epoch=epoch, reason=reason)
        return call_of(self.service, registry.ROLLBACK, body=body, model=model)


def _with_content(call: Call[registry.Applied], content: bytes, headers: Mapping[str, str]) -> Call[registry.Applied]:
    return Call(call.service, call.route, call.read, call.path, call.query, content, headers)
