"""Metrics by prometheus-client: collectors of the names that are declared, and the runtime's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from evenkeel.libs.telemetry import names
from evenkeel.libs.telemetry.names import MetricName


class ServiceRegistry(CollectorRegistry):
    """Gives every sample the label `service`, so that no collector can forget it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [
                sample._replace(labels={"service": self._service, **sample.labels}) for sample in metric.samples
            ]
            yield metric


def counter(name: MetricName) -> Counter:
    """A collector that belongs to no registry yet."""
    return Counter(name.name, name.help, name.labels, registry=None)


def gauge(name: MetricName) -> Gauge:
    return Gauge(name.name, name.help, name.labels, registry=None)


def histogram(name: MetricName) -> Histogram:
    return Histogram(name.name, name.help, name.labels, buckets=name.buckets, registry=None)


def read(name: MetricName, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """What a collector answers that reads values when it is asked: label values, and the value for them."""
    kind = CounterMetricFamily if name.kind == "counter" else GaugeMetricFamily
    family = kind(name.name, name.help, labels=name.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


class Metrics:
    """The runtime's own metrics; a service adds its own to `registry` (`Service.metrics`)."""

    def __init__(self, service: str) -> None:
        self.registry = ServiceRegistry(service)
        self.consumed = counter(names.EVENTS_CONSUMED)
        self.published = counter(names.EVENTS_PUBLISHED)
        self.repeated = counter(names.EVENTS_REPEATED)
        self.dead_lettered = counter(names.EVENTS_DEAD_LETTERED)
        self.retries = counter(names.RETRIES)
        self.batch_seconds = histogram(names.TRANSACTION_SECONDS)
        self.lag = gauge(names.CONSUMER_LAG)
        self.pending = gauge(names.MERGE_PENDING)
        self.parked = gauge(names.PARKED)
        self.outbox = gauge(names.OUTBOX_ROWS)
        self.outbox_bytes = gauge(names.OUTBOX_BYTES)
        self.free = gauge(names.DISK_FREE)
        self.ready = gauge(names.READY)
        build = gauge(names.BUILD)
        build.labels(version("evenkeel")).set(1)
        own = (one for one in vars(self).values() if isinstance(one, Counter | Gauge | Histogram))
        for collector in (*own, build):
            self.registry.register(collector)
