"""Every metric that a service shows is declared, once, and stands in the documentation."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.settings import Settings
from evenkeel.libs.telemetry import names
from evenkeel.libs.telemetry.metrics import Metrics, counter, gauge
from evenkeel.libs.telemetry.names import MetricName

ROOT: Final = Path(__file__).parents[2]


def declared_by(service: str) -> tuple[MetricName, ...]:
    """Those of a service's own, none if it has no `metrics.py`."""
    if not (ROOT / "services" / service / "metrics.py").exists():
        return ()
    found: tuple[MetricName, ...] = importlib.import_module(f"evenkeel.services.{service}.metrics").NAMES
    return found


OWNERS: Final = {"every service": names.NAMES, **{service: declared_by(service) for service in SERVICES}}


def shown_by(service: str, data_dir: Path) -> list[Any]:
    """The families that a service shows which has not begun to work."""
    declared = importlib.import_module(f"evenkeel.services.{service}.service").service
    metrics = Metrics(service)
    if declared.metrics is not None:
        metrics.registry.register(declared.metrics(declared.context(Settings(data_dir=data_dir), declared.settings())))
    return list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_shows_what_it_declares_and_nothing_else(service: str, tmp_path: Path) -> None:
    shown = {
        (family.name, family.type, family.documentation)
        for family in shown_by(service, tmp_path)
        if not family.name.endswith("_created")
    }
    declared = {(name.name, name.kind, name.help) for name in (*names.NAMES, *declared_by(service))}
    assert shown == declared


@pytest.mark.parametrize("service", SERVICES)
def test_every_sample_says_whose_it_is(service: str, tmp_path: Path) -> None:
    samples = [sample for family in shown_by(service, tmp_path) for sample in family.samples]
    assert samples
    assert {sample.labels.get("service") for sample in samples} == {service}


def test_each_name_is_declared_once() -> None:
    every = [name.name for owner in OWNERS.values() for name in owner]
    assert len(every) == len(set(every))


def test_the_documentation_has_a_row_for_each() -> None:
    lines = ["| metric | of | labels | what |", "|---|---|---|---|"]
    for owner, declared in OWNERS.items():
        for name in declared:
            shown = f"{name.name}_total" if name.kind == "counter" else name.name
            labels = ", ".join(f"`{label}`" for label in name.labels)
            lines.append(f"| `{shown}` | {owner} | {labels} | {name.kind}: {name.help} |")
    table = "\n".join(lines)
    assert table in (ROOT / "docs" / "operations.md").read_text(), f"docs/operations.md, Metrics, is to be:\n{table}"


def test_collectors_are_made_of_declared_names_only() -> None:
    home = ROOT / "libs" / "telemetry" / "metrics.py"
    makers = ("Counter", "Gauge", "Histogram", "Summary", "Info", "CounterMetricFamily", "GaugeMetricFamily")
    for folder in ("libs", "services", "evenkeel/apps"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            made = {
                node.func.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in makers
            }
            is_theirs = any(
                isinstance(node, ast.ImportFrom) and str(node.module).startswith("prometheus_client")
                for node in ast.walk(tree)
            )
            assert path == home or not (made and is_theirs), (
                f"{path} makes {made}: declare a name and use libs.telemetry.metrics"
            )


@pytest.mark.parametrize(
    "name",
    ["events_consumed", "evenkeel_Events", "evenkeel_events_total", "evenkeel_wait_ms", "evenkeel_share_percent"],
)
def test_names_have_the_prefix_and_a_base_unit(name: str) -> None:
    with pytest.raises(ValueError, match="a metric is called evenkeel_"):
        names.counter(name, "")


def test_the_label_service_is_nobodys_own_and_buckets_are_a_histograms() -> None:
    with pytest.raises(ValueError, match="label service already"):
        names.gauge("evenkeel_things", "", "service")
    with pytest.raises(ValueError, match="a histogram has buckets"):
        names.histogram("evenkeel_thing_seconds", "", buckets=())


def test_one_registry_takes_a_name_once() -> None:
    metrics = Metrics("trainer")
    metrics.registry.register(counter(names.counter("evenkeel_things", "Things.")))
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.registry.register(gauge(names.gauge("evenkeel_ready", "Again.")))
