"""What can be asked of monitor."""

from __future__ import annotations

from evenkeel.contracts.http import monitor
from evenkeel.libs.client.calls.operations import Operations
from evenkeel.libs.client.exchange import Call, call_of
from evenkeel.libs.client.operation import C_co, operation


class Monitor(Operations[C_co]):
    """Quality and drift."""

    service = "monitor"

    @operation
    def models(self) -> Call[monitor.MonitoredModels]:
        """How every model stands, and serving's replicas."""
        return call_of(self.service, monitor.MODELS)

    @operation
    def windows(self, model: str, *, window: str | None = None, limit: int = 400) -> Call[monitor.Windows]:
        """Measured windows, as they were published; `window` is a length such as `7d`."""
        query = monitor.WindowsQuery(window=window, limit=limit)
        return call_of(self.service, monitor.WINDOWS, query=query, model=model)

    @operation
    def performance(self, model: str, *, window: str | None = None, limit: int = 400) -> Call[monitor.Performance]:
        """Quality over time, and where it was called degraded."""
        query = monitor.WindowsQuery(window=window, limit=limit)
        return call_of(self.service, monitor.PERFORMANCE, query=query, model=model)

    @operation
    def drift(self, model: str, *, window: str | None = None, limit: int = 400) -> Call[monitor.Drift]:
        """Drift over time, and where it was called."""
        query = monitor.WindowsQuery(window=window, limit=limit)
        return call_of(self.service, monitor.DRIFT, query=query, model=model)

    @operation
    def rejections(self, stream: str, *, limit: int = 1000) -> Call[monitor.Rejections]:
        """Rejected records of a stream, counted by day and rule."""
        return call_of(self.service, monitor.REJECTIONS, query=monitor.RejectionsQuery(limit=limit), stream=stream)
