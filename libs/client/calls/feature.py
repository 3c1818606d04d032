"""What can be asked of feature."""

from __future__ import annotations

from evenkeel.contracts.http import feature
from evenkeel.libs.client.calls.operations import Operations
from evenkeel.libs.client.exchange import Call, call_of
from evenkeel.libs.client.operation import C_co, operation


class Feature(Operations[C_co]):
    """Views and training tables."""

    service = "feature"

    @operation
    def view(self, model: str) -> Call[feature.ViewState]:
        """How far a model's windows have come, and what they hold."""
        return call_of(self.service, feature.VIEW, model=model)

    @operation
    def datasets(self, model: str, *, limit: int = 100) -> Call[feature.Datasets]:
        """The newest versions of a model's training table, newest first."""
        return call_of(self.service, feature.DATASETS, query=feature.DatasetsQuery(limit=limit), model=model)
