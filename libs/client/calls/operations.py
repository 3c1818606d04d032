"""What can be asked of every service."""

from __future__ import annotations

from typing import ClassVar

from evenkeel.contracts.http import operations
from evenkeel.libs.client.exchange import Call, call_of
from evenkeel.libs.client.operation import C_co, Group, operation


class Operations(Group[C_co]):
    """What every service answers."""

    service: ClassVar[str]

    @operation
    def live(self) -> Call[operations.Live]:
        """Whether the process answers."""
        return call_of(self.service, operations.LIVE)

    @operation
    def ready(self) -> Call[operations.Readiness]:
        """Whether the service does its work now, and if not, why."""
        return call_of(self.service, operations.READY)

    @operation
    def openapi(self) -> Call[operations.OpenApiDocument]:
        """The service's OpenAPI document."""
        return call_of(self.service, operations.OPENAPI)

    @operation
    def metrics(self) -> Call[str]:
        """What the service measures, in Prometheus' text format."""
        return call_of(self.service, operations.METRICS)

    @operation
    def parked(self) -> Call[operations.ParkedKeys]:
        """Records that the service's ordered handler could not take."""
        return call_of(self.service, operations.PARKED)

    @operation
    def release(self, key: str) -> Call[operations.Released]:
        """Fold what is parked under a key."""
        return call_of(self.service, operations.RELEASE, body=operations.ReleaseRequest(key=key))
