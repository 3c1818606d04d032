"""Declaration files: what is accepted, and the line, field and fix of everything that is not."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from evenkeel.contracts.declaration import (
    DAY_US,
    HOUR_US,
    Declaration,
    StreamSpec,
    declaration_schema,
    format_duration,
    parse_duration_us,
)
from evenkeel.libs.declaration import MAX_BYTES, DeclarationError, load_declaration, schema
from evenkeel.libs.features import compile_plan
from evenkeel.libs.metrics import METRICS

ROOT = Path(__file__).parents[2]
SMALLEST = (ROOT / "docs/examples/smallest.yaml").read_text()
FLIGHT_DELAY = (ROOT / "evenkeel/apps/demo/flight-delay.yaml").read_text()


def test_the_smallest_file_is_short_and_complete() -> None:
    assert len(SMALLEST.splitlines()) < 25
    declaration = load_declaration(SMALLEST, "smallest.yaml")
    model = declaration.models["order-returned"]
    assert model.candidate_names == ("logistic", "hist_gradient_boosting")
    assert model.metric_name == "roc_auc"
    assert compile_plan(model, declaration.streams).names == (
        "amount",
        "amount_by_customer_count_24h",
        "amount_by_customer_mean_24h",
        "amount_by_customer_count_7d",
        "amount_by_customer_mean_7d",
    )


def test_the_demo_uses_all_three_streams_and_no_departure_delay() -> None:
    declaration = load_declaration(FLIGHT_DELAY, "flight-delay.yaml")
    plan = compile_plan(declaration.models["flight-delay"], declaration.streams)
    assert plan.sources == ("flights#label", "weather")
    assert "dep_delay" not in FLIGHT_DELAY
    assert {"delay_by_origin_carrier_mean_3h", "delay_by_tailnum_last_24h", "temp_by_origin_last_6h"} <= set(plan.names)


@pytest.mark.parametrize("text", [SMALLEST, FLIGHT_DELAY])
def test_a_declaration_survives_json_and_fits_the_published_schema(text: str) -> None:
    declaration = load_declaration(text, "file.yaml")
    assert Declaration.model_validate_json(declaration.model_dump_json()) == declaration
    assert load_declaration(declaration.model_dump_json(), "file.json") == declaration
    for published in (schema(), declaration_schema()):
        jsonschema_rs.validator_for(published).validate(json.loads(declaration.model_dump_json()))
    jsonschema_rs.validator_for(schema()).validate(yaml.safe_load(text))


def _problems(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(DeclarationError) as caught:
        load_declaration(text, "file.yaml")
    assert all(f"file.yaml: {problem}" in str(caught.value) for problem in caught.value.problems)
    return [(problem.line, problem.field, f"{problem.message}; {problem.fix}") for problem in caught.value.problems]


STREAM, MODEL = "streams.orders", "models.order-returned"


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        ("topic: shop.orders", "topc: shop.orders", 3, f"{STREAM}.topc", "did you mean `topic`?"),
        ("horizon: 3d", "horizn: 3d", 14, f"{STREAM}.label.horizn", "did you mean `horizon`?"),
        ("over: [24h, 7d]", "ovr: [24h]", 24, f"{MODEL}.features[1].ovr", "did you mean `over`?"),
        ("{of: orders.amount", "{off: orders.amount", 24, f"{MODEL}.features[1]", "did you mean `of`?"),
        ("task: binary", "task: binry", 19, f"{MODEL}.task", "did you mean 'binary'?"),
        ("task: binary", "task: multiclass", 19, f"{MODEL}.task", "not built yet"),
        ("type: number", "type: numbr", 8, f"{STREAM}.fields.amount.type", "did you mean 'number'?"),
        ("type: number", "type: number, min: 2, max: 1", 8, f"{STREAM}.fields.amount.min", "greater than max"),
        ("type: number", "type: number, values: [a]", 8, f"{STREAM}.fields.amount.values", "has no values"),
        ("type: number", "type: number, min: .nan", 8, f"{STREAM}.fields.amount.min", "valid number"),
        ("type: string", "type: string, max: 1", 7, f"{STREAM}.fields.customer.max", "remove `max`"),
        ("type: string", "type: category", 7, f"{STREAM}.fields.customer", "add `values: [...]`"),
        ("type: string", "type: category, values: [a, a]", 7, f"{STREAM}.fields.customer.values", "twice"),
        ("type: string", "type: category, values: [1]", 7, f"{STREAM}.fields.customer.values[0]", "in quotes"),
        ("type: string", "type: string, personal: true", 7, f"{STREAM}.fields.customer.personal", "not built yet"),
        ("id: order_id", "id: amount", 8, f"{STREAM}.fields.amount.type", "it is the id of the record"),
        ("time: ordered_at", "time: order_id", 5, f"{STREAM}.time", "both id and time"),
        (
            "time: ordered_at",
            "time: ordered_at\n    keys: [custmer]",
            6,
            f"{STREAM}.keys[0]",
            "did you mean 'customer'?",
        ),
        (
            "time: ordered_at",
            "time: ordered_at\n    keys: [amount]",
            6,
            f"{STREAM}.keys[0]",
            "cannot be of type number",
        ),
        (
            "topic: shop.returns",
            "topic: serving.prediction-made.v1",
            10,
            f"{STREAM}.label.topic",
            "is Evenkeel's own; give producers a topic of their own",
        ),
        ("topic: shop.returns", "topic: shop.orders", 10, f"{STREAM}.label.topic", "also read by streams.orders"),
        ("horizon: 3d", "horizon: 3", 14, f"{STREAM}.label.horizon", "needs a unit"),
        ("horizon: 3d", "horizon: 3 weeks", 14, f"{STREAM}.label.horizon", "is not a duration"),
        ("horizon: 3d", "horizon: 0s", 14, f"{STREAM}.label.horizon", "greater than 0"),
        ("horizon: 3d", "horizon: 8d", 18, f"{MODEL}.retraining.first_after.span", "longer than holdout plus"),
        ("  orders:", "  or ders:", 2, "streams.or ders", "is not a name"),
        ("  orders:", "  -orders:", 2, "streams.-orders", "is not a name"),
        ("stream: orders", "stream: order", 20, f"{MODEL}.stream", "did you mean 'orders'?"),
        ("label: returned", "label: retrned", 21, f"{MODEL}.label", "did you mean 'returned'?"),
        ("label: returned", "label: returned or 1", 21, f"{MODEL}.label", "field op number"),
        ("type: boolean", "type: number", 21, f"{MODEL}.label", "compare it"),
        ("type: boolean", "type: string", 21, f"{MODEL}.label", "is of type string"),
        ("task: binary", "task: regression", 21, f"{MODEL}.label", "name a number field"),
        ("task: binary", "task: binary\n    metric: mae", 20, f"{MODEL}.metric", "use roc_auc or"),
        ("task: binary", "task: binary\n    metric: roc_acu", 20, f"{MODEL}.metric", "did you mean 'roc_auc'?"),
        ("task: binary", "task: binary\n    candidates: [linear]", 20, f"{MODEL}.candidates[0]", "use logistic or"),
        ("task: binary", "task: binary\n    promotion: {margin: -1}", 20, f"{MODEL}.promotion.margin", "greater than"),
        *(
            ("task: binary", f"task: binary\n    monitoring: {{{written}}}", 20, f"{MODEL}.monitoring.{where}", words)
            for written, where, words in (
                ("statistics: {spi: {}}", "statistics.spi", "did you mean 'psi'?"),
                ("statistics: {psi: {treshold: 1}}", "statistics.psi.treshold", "it has threshold"),
                ("statistics: {psi: {threshold: 0}}", "statistics.psi.threshold", "it must be above 0"),
                ("statistics: {psi: 0.3}", "statistics.psi", "a mapping is expected here"),
                ("detectors: {adwin: {delta: 2}}", "detectors.adwin.delta", "it must be above 0 and below 1"),
                ("detectors: {psi: {}}", "detectors.psi", "'psi' is not one of 'adwin'"),
                ("psi_threshold: 0.3", "psi_threshold", "is not known here"),
            )
        ),
        ("task: binary", "task: binary\n    promotion: 3", 20, f"{MODEL}.promotion", "a mapping is expected"),
        ("of: orders.amount", "of: orders.amout", 24, f"{MODEL}.features[1].of", "did you mean 'amount'?"),
        ("of: orders.amount", "of: shop.amount", 24, f"{MODEL}.features[1].of", "no stream behind"),
        ("by: [customer]", "by: [custmer]", 24, f"{MODEL}.features[1].by", "did you mean 'customer'?"),
        ("by: [customer]", "by: [[customer]]", 24, f"{MODEL}.features[1].by", "list of field names"),
        ("over: [24h", "over: [30s", 24, f"{MODEL}.features[1].over[0]", "from 1m to 90d"),
        ("over: [24h", "over: [91d", 24, f"{MODEL}.features[1].over[0]", "from 1m to 90d"),
        ("count, mean", "count, median", 24, f"{MODEL}.features[1].compute[1]", "is not one of"),
        ("fields: [amount]", "fields: amount", 23, f"{MODEL}.features[0].fields", "write it as `[a, b]`"),
        ("fields: [amount]", "fields: []", 23, f"{MODEL}.features[0].fields", "at least 1"),
        ("fields: [amount]", "fields: [customer]", 23, f"{MODEL}.features[0].fields[0]", "is of type string"),
        ("  orders:", "  orders: {}\n  orders:", 3, "streams.orders", "given twice"),
        ("fields: [amount]", "fields: &x [amount]", 23, "", "anchors and aliases"),
        ("fields: [amount]", "fields: [amount", 24, "", "this is not YAML"),
        ("type: string", "type: !!python/name:os.system string", 7, f"{STREAM}.fields.customer.type", "the tag"),
    ],
)
def test_one_mistake_is_named_with_its_line_field_and_fix(
    old: str, new: str, line: int, field: str, words: str
) -> None:
    assert old in SMALLEST
    problems = _problems(SMALLEST.replace(old, new, 1))
    assert any((line, field) == problem[:2] and words in problem[2] for problem in problems), problems


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("{}", "nothing is declared"),
        ("[1]", "the file is not a mapping"),
        ("streams: [1]", "a mapping is expected"),
        ("streams: " + "[" * 100_000, "nested too deeply"),
        ("streams: " + "{a: " * 30, "nested too deeply"),
        ("a: \x00", "this is not YAML"),
        ("a: &a [x]\nb: *a", "anchors and aliases"),
        ("? [a]\n: b", "a key is not a text"),
        ("a: 1\n---\nb: 1", "this is not YAML"),
        ("#" * (MAX_BYTES + 1), "is larger than"),
    ],
)
def test_what_is_no_declaration_is_named(text: str, words: str) -> None:
    assert any(words in problem[2] for problem in _problems(text))


def test_every_mistake_is_reported_at_once_in_order() -> None:
    text = SMALLEST.replace("time: ordered_at", "tme: ordered_at").replace("[24h, 7d]", "[24, 7d]")
    assert [problem[:2] for problem in _problems(text)] == [
        (2, "streams.orders.time"),
        (5, "streams.orders.tme"),
        (24, "models.order-returned.features[1].over[0]"),
    ]


def test_names_that_older_yaml_takes_for_booleans_and_times_are_texts() -> None:
    text = SMALLEST.replace("{type: string}", "{type: category, values: [NO, on, y, 12:30, 2013-01-01, 0x1F, 1_000]}")
    values = load_declaration(text, "file.yaml").streams["orders"].fields["customer"].values
    assert values == ("NO", "on", "y", "12:30", "2013-01-01", "0x1F", "1_000")


def test_a_model_may_use_a_stream_declared_before() -> None:
    head, models = SMALLEST.split("models:")
    streams = load_declaration(head, "streams.yaml").streams
    assert load_declaration("models:" + models, "model.yaml", streams).models.keys() == {"order-returned"}
    assert any("no stream 'orders'" in problem[2] for problem in _problems("models:" + models))


def test_two_streams_never_read_one_topic_whenever_they_are_declared() -> None:
    declared = load_declaration(SMALLEST, "smallest.yaml").streams
    with pytest.raises(DeclarationError) as error:
        load_declaration(
            SMALLEST.replace("  orders:", "  others:").replace("stream: orders", "stream: others"), "x", declared
        )
    found = [(problem.field, problem.message) for problem in error.value.problems]
    assert found == [
        ("streams.others.topic", "topic 'shop.orders' is also read by streams.orders"),
        ("streams.others.label.topic", "topic 'shop.returns' is also read by streams.orders.label"),
    ]
    assert load_declaration(SMALLEST, "again.yaml", declared).streams == declared


def test_a_stream_without_label_has_no_model() -> None:
    streams, models = SMALLEST.split("    label:\n")[0], SMALLEST[SMALLEST.index("models:") :]
    assert any("has no label; add `label:` to stream 'orders'" in problem[2] for problem in _problems(streams + models))


def test_durations() -> None:
    for text in ("0s", "250ms", "90s", "15m", "1h", "24h", "47h", "2d", "90d"):
        assert format_duration(parse_duration_us(text)) == text
    assert parse_duration_us("1d") == DAY_US == 24 * HOUR_US
    for text in ("", "1", "h", "-1h", "1.5h", "1h30m", "1w"):
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration_us(text)


def test_id_and_time_are_fields_without_being_listed() -> None:
    stream = StreamSpec.model_validate({"topic": "t", "id": "i", "time": "at", "fields": {"x": {"type": "number"}}})
    kinds = [field and field.type for field in map(stream.field, ("i", "at", "x", "y"))]
    assert kinds == ["string", "time", "number", None]


@pytest.mark.parametrize(("metric", "task"), [(metric.name, task) for metric in METRICS for task in metric.tasks])
def test_every_metric_that_fits_the_task_can_be_declared(metric: str, task: str) -> None:
    text = SMALLEST.replace("task: binary", f"task: {task}\n    metric: {metric}")
    if task == "regression":
        text = text.replace("type: boolean", "type: number")
    assert load_declaration(text, "shop.yaml").models["order-returned"].metric_name == metric
