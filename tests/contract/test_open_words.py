"""What grows most often is no new major: each edit is made in a copy of contracts/, and the house's own checker runs there.

A word is edited where it travels, in an example: the checker decodes every example of the copy and holds it against the
committed schema, as a consumer of today would read what a producer of tomorrow writes.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jsonschema_rs
import pytest
import yaml

from evenkeel.contracts.compatibility import refused_now
from evenkeel.contracts.declaration import ModelSpec, StreamSpec, declaration_schema, read_declaration
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.contracts.topics import TOPICS
from evenkeel.libs.declaration import VOCABULARY, DeclarationError, load_declaration

ROOT: Final = Path(__file__).parents[2]
SMALLEST: Final = (ROOT / "docs/examples/smallest.yaml").read_text()
Edit = Callable[[Path], None]


def field(file: str, owner: str, line: str) -> Edit:
    """A field more, at the end of a class."""

    def make(contracts: Path) -> None:
        path = contracts / file
        lines = path.read_text().splitlines(keepends=True)
        (found,) = (
            node
            for node in ast.walk(ast.parse("".join(lines)))
            if isinstance(node, ast.ClassDef) and node.name == owner
        )
        methods = [node for node in found.body if isinstance(node, ast.FunctionDef)]
        first = min((node.lineno - 1 - len(node.decorator_list) for node in methods), default=found.end_lineno or 0)
        lines.insert(first, f"    {line}\n")
        path.write_text("".join(lines))

    return make


def text(file: str, old: str, new: str) -> Edit:
    def make(contracts: Path) -> None:
        path = contracts / file
        assert path.read_text().count(old) == 1, (file, old)
        path.write_text(path.read_text().replace(old, new))

    return make


def word(example: str, value: Any, *place: str | int) -> Edit:
    """Another word at a place of an example's payload."""

    def make(contracts: Path) -> None:
        path = contracts / "examples" / f"{example}.json"
        message = json.loads(path.read_text())
        part = message["value"]
        for step in place[:-1]:
            part = part[step]
        assert place[-1] in part if isinstance(part, dict) else part[place[-1]]
        part[place[-1]] = value
        path.write_text(json.dumps(message))

    return make


DECLARED: Final = "registry.model-declared.v1/first"
EDITS: Final[dict[str, Edit]] = {
    "a candidate estimator": word(DECLARED, ["random_forest"], "spec", "candidates"),
    "an estimator that was trained": word("trainer.run-completed.v1/first", "random_forest", "estimator"),
    "a window aggregation": word(DECLARED, ["distinct"], "spec", "features", 5, "compute"),
    "a kind of feature": word(DECLARED, {"embed": ["title"]}, "spec", "features", 0),
    "a metric": word(DECLARED, "pinball", "spec", "metric"),
    "a gate": word("registry.gate-decided.v1/first", "fairness", "gate"),
    "a detector": word("monitor.drift-detected.v1/first", "kolmogorov_smirnov", "detector"),
    "a trigger": word("trainer.retrain-decided.v1/yes-accepted", "estimated_decay", "trigger"),
    "a reason not to train": word("trainer.retrain-decided.v1/yes-accepted", "holiday", "reason"),
    "a reason of a failed run": word("trainer.run-failed.v1/first", "bias", "reason"),
    "a rule that a record breaks": word("ingest.event-rejected.v1/first", "pattern", "rule"),
    "a role of a prediction": word("serving.prediction-made.v1/stream", "challenger", "role"),
    "a cause of a champion": word("registry.champion-changed.v1/first", "canary", "cause"),
    "a policy field of monitoring": field("declaration.py", "MonitoringPolicy", "quiet_hours: int = 0"),
    "a policy field of promotion": field("declaration.py", "PromotionPolicy", "canary_ratio: float = 0.0"),
    "a policy field that travels": word(DECLARED, {"canary": "2d"}, "spec", "promotion"),
    "a field of a window feature": field("declaration.py", "WindowFeature", "decay_us: int | None = None"),
    "a field of a gate's verdict": field("registry.py", "GateDecided", "slice: str | None = None"),
    "a field of a feature's drift": field("monitor.py", "FeatureDrift", "slice: str | None = None"),
    "what another statistic needs of a feature's drift": field(
        "monitor.py", "FeatureDrift", "lag: Count | None = None"
    ),
}
BREAKING: Final[dict[str, Edit]] = {
    "a closed list": text("ingest.py", "    rule: Word\n", "    rule: __import__('typing').Literal['missing']\n"),
    "a required field": field("registry.py", "GateDecided", "slice: str"),
    "a field of a payload renamed": text("monitor.py", "    detector: Word\n", "    found_by: Word\n"),
    "a key of the declaration renamed": text("declaration.py", "    margin: float = ", "    gain: float = "),
    "a key of the declaration required": field("declaration.py", "LabelSpec", "owner: str"),
    "a word that is no word": word("registry.gate-decided.v1/first", "Fairness!", "gate"),
}


class Made(NamedTuple):
    """What the checker of the copy says: breaking edits, and examples that a reader of today cannot take."""

    breaking: list[str]
    unreadable: list[str]


def _checked(copy: Path) -> Made:
    """Runs in a process of its own, whose `evenkeel.contracts` is the copy."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "evenkeel"]:
        del sys.modules[name]
    sys.path.insert(0, str(copy))
    from evenkeel.contracts import export, runtime, topics

    payloads = runtime.IN_BAND | {topic.name: topic.payload for topic in topics.TOPICS}
    assert Path(export.__file__).is_relative_to(copy)
    unreadable = []
    for path in sorted((copy / "contracts" / "examples").glob("*/*.json")):
        value = json.loads(path.read_text())["value"]
        committed = json.loads((copy / "contracts" / "schemas" / f"{path.parent.name}.json").read_text())
        try:
            jsonschema_rs.validator_for(committed).validate(value)
            payloads[path.parent.name].model_validate(value)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            unreadable.append(f"{path.parent.name}/{path.stem}: {str(error).splitlines()[0]}")
    return Made(export.breaking(), unreadable)


def checked(edit: Edit, folder: Path) -> Made:
    """The edit in a copy. A fork and not a new process: what takes long to import is there already."""
    shutil.copytree(ROOT / "contracts", folder / "contracts", ignore=shutil.ignore_patterns("__pycache__", "asyncapi"))
    package = folder / "evenkeel"
    package.mkdir()
    shutil.copy(ROOT / "evenkeel" / "__init__.py", package)
    (package / "contracts").symlink_to(folder / "contracts")
    edit(folder / "contracts")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = json.dumps(_checked(folder))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to show it
            said = json.dumps(Made([f"the copy cannot be checked: {error!r}"], []))
        with os.fdopen(writing, "w") as answer:
            answer.write(said)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        made = Made(*json.loads(answer.read()))
    os.waitpid(child, 0)
    return made


@pytest.mark.parametrize("name", EDITS)
def test_what_grows_is_no_new_major(name: str, tmp_path: Path) -> None:
    assert checked(EDITS[name], tmp_path) == Made([], [])


@pytest.mark.parametrize("name", BREAKING)
def test_the_checker_would_have_said_so(name: str, tmp_path: Path) -> None:
    made = checked(BREAKING[name], tmp_path)
    assert made.breaking or made.unreadable
    assert "cannot be checked" not in str(made)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_no_payload_has_a_closed_list(topic: Any) -> None:
    """Neither of words nor of keys."""
    schema = json.loads((ROOT / "contracts" / "schemas" / f"{topic.name}.json").read_text())
    assert list(_closed(schema)) == []


def _closed(schema: Any, where: str = "$") -> Sequence[str]:
    found = []
    if isinstance(schema, dict):
        if {"enum", "const"} & schema.keys() or schema.get("additionalProperties") is False:
            found.append(where)
        for name, inner in schema.items():
            found += _closed(inner, f"{where}.{name}")
    elif isinstance(schema, list):
        for number, inner in enumerate(schema):
            found += _closed(inner, f"{where}[{number}]")
    return found


# -- the door -----------------------------------------------------------------------------------------------------------

PLACES: Final[dict[str, tuple[str, str, str]]] = {
    "field_type": ("{type: boolean}", "{type: WORD}", "streams.orders.label.fields.returned.type"),
    "time_part": (
        "fields: [amount]",
        "{time: ordered_at, parts: [WORD]}",
        "models.order-returned.features[0].parts[0]",
    ),
    "aggregation": ("count, mean", "count, WORD", "models.order-returned.features[1].compute[1]"),
    "task": ("task: binary", "task: WORD", "models.order-returned.task"),
    "estimator": ("label: returned", "label: returned\n    candidates: [WORD]", "models.order-returned.candidates[0]"),
    "metric": ("label: returned", "label: returned\n    metric: WORD", "models.order-returned.metric"),
    "statistic": (
        "label: returned",
        "label: returned\n    monitoring: {statistics: {WORD: {}}}",
        "models.order-returned.monitoring.statistics.WORD",
    ),
    "detector": (
        "label: returned",
        "label: returned\n    monitoring: {detectors: {WORD: {}}}",
        "models.order-returned.monitoring.detectors.WORD",
    ),
    "trigger": (
        "label: returned",
        "label: returned\n    retraining: {triggers: [WORD]}",
        "models.order-returned.retraining.triggers[0]",
    ),
    "risk": ("label: returned", "label: returned\n    promotion: {risk: WORD}", "models.order-returned.promotion.risk"),
}
"""Kind of word → where one of it stands in the smallest declaration, and how an error names the place."""


def test_every_kind_of_word_is_tried() -> None:
    assert PLACES.keys() == VOCABULARY.keys()


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("unknown", ["another-word", "Not A Word!"])
def test_the_door_refuses_a_word_that_does_not_exist(kind: str, unknown: str) -> None:
    old, new, field_named = PLACES[kind]
    written = SMALLEST.replace(old, new.replace("WORD", f'"{unknown}"'))
    with pytest.raises(DeclarationError) as refused:
        load_declaration(written, "file.yaml")
    (problem,) = (one for one in refused.value.problems if one.field == field_named.replace("WORD", unknown))
    assert repr(unknown) in problem.message
    assert all(repr(known) in problem.message for known in VOCABULARY[kind])
    assert unknown in written.splitlines()[problem.line - 1]


@pytest.mark.parametrize("kind", PLACES)
def test_the_door_takes_a_word_once_it_is_in_its_list(kind: str) -> None:
    old, new, _ = PLACES[kind]
    written = yaml.safe_load(SMALLEST.replace(old, new.replace("WORD", "another-word")))
    more = {**VOCABULARY, kind: (*VOCABULARY[kind], "another-word")}
    assert "another-word" in read_declaration(written, more).model_dump_json()
    assert refused_now(declaration_schema(VOCABULARY), declaration_schema(more)) == []
    assert refused_now(declaration_schema(more), declaration_schema(VOCABULARY))


def _keeps(written: Any, given: Any) -> bool:
    """Whether all that was given is written again; defaults of keys that are newer than it may stand beside it."""
    if isinstance(given, dict):
        return isinstance(written, dict) and all(
            key in written and _keeps(written[key], one) for key, one in given.items()
        )
    if isinstance(given, list):
        return len(written) == len(given) and all(map(_keeps, written, given))
    return bool(written == given)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "features"), [{"embed": ["title"], "into": {"dimensions": 32}}]),
        (("spec", "promotion", "canary"), {"share": 0.1, "for": "2d"}),
        (("spec", "owner"), "fraud team"),
        (("streams", "flights", "fields", "origin", "unit"), "IATA"),
        (("streams", "flights", "label", "time_is"), "known"),
    ],
    ids=lambda part: ".".join(part) if isinstance(part, tuple) else "",
)
def test_behind_the_door_what_is_not_known_is_kept(place: tuple[str, ...], value: Any) -> None:
    """Read as a fact, read as a model, and written again."""
    message = json.loads((ROOT / "contracts" / "examples" / f"{DECLARED}.json").read_text())["value"]
    part = message
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    fact = ModelDeclared.model_validate_json(json.dumps(message))
    assert json.loads(fact.model_dump_json()) == message | {"caller": None}
    assert _keeps(ModelSpec.model_validate(fact.spec).written(), message["spec"])
    for name, stream in fact.streams.items():
        assert _keeps(StreamSpec.model_validate(stream).written(), message["streams"][name])
