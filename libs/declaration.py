"""Read a declaration file: every problem with its line, its field and the fix.

This is the door of all words: what is not in `VOCABULARY` comes no further. Behind it nobody refuses one.

YAML is read by its 1.2 core rules (only `true` and `false` are booleans, a category may be called `NO`), without tags,
anchors or duplicate keys, so that a file means what it says and cannot expand into something larger.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, Protocol, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from evenkeel.contracts.declaration import (
    FEATURE_KEYS,
    OTHER_FEATURE,
    WORDS_OF,
    Declaration,
    FieldSpec,
    LabelSpec,
    ModelSpec,
    OtherFeature,
    StreamSpec,
    Vocabulary,
    declaration_schema,
    format_duration,
    read_declaration,
)
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.drift import DETECTORS, STATISTICS, Parameter, UnusableParameter
from evenkeel.libs.drift.parameters import completed
from evenkeel.libs.estimators import ESTIMATORS
from evenkeel.libs.features.aggregations import AGGREGATIONS
from evenkeel.libs.features.labels import parse_label
from evenkeel.libs.features.plan import Path, PlanError, Problem, compile_plan, unknown
from evenkeel.libs.features.scalars import TIME_PARTS
from evenkeel.libs.fields import FIELD_TYPES, is_identifier
from evenkeel.libs.metrics import METRICS

MAX_BYTES: Final = 1_000_000
_MAX_DEPTH: Final = 20


class DeclarationProblem(NamedTuple):
    """One thing to correct, and where."""

    line: int
    field: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field or 'file'}: {self.message}; {self.fix}"


class DeclarationError(ValueError):
    """The file cannot be applied; `problems` names them all, in the file's order."""

    def __init__(self, filename: str, problems: Sequence[DeclarationProblem]) -> None:
        self.filename = filename
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(f"{filename}: {problem}" for problem in self.problems))


def load_declaration(text: str, filename: str, declared_streams: Mapping[str, StreamSpec] | None = None) -> Declaration:
    """Read and check a declaration; raises `DeclarationError` with everything that is wrong.

    `declared_streams` are streams that a model may use although this file does not declare them again.
    """
    lines: dict[Path, int] = {(): 1}
    try:
        data = _read(text, lines)
    except _Unreadable as error:
        raise DeclarationError(filename, [error.problem]) from None
    try:
        declaration = read_declaration(data, VOCABULARY)
    except ValidationError as error:
        problems = [_invalid(details) for details in error.errors(include_url=False)]
        raise DeclarationError(filename, [_placed(problem, lines) for problem in problems]) from None
    problems = list(check_declaration(declaration, declared_streams or {}))
    if problems:
        raise DeclarationError(filename, [_placed(problem, lines) for problem in problems])
    return declaration


def check_declaration(declaration: Declaration, declared_streams: Mapping[str, StreamSpec]) -> Iterator[Problem]:
    """What is wrong between the parts of a declaration, each of which is valid by itself."""
    if not declaration.streams and not declaration.models:
        yield Problem((), "nothing is declared", "add `streams:` with at least one stream, or `models:`")
    others = {name: stream for name, stream in declared_streams.items() if name not in declaration.streams}
    topics = {topic: ".".join(map(str, where)) for where, topic in _raw_topics(others)}
    for where, topic in _raw_topics(declaration.streams):
        if topic in BY_NAME:
            fix = "give producers a topic of their own to write to"
            yield Problem((*where, "topic"), f"topic {topic!r} is Evenkeel's own", fix)
        elif topic in topics:
            fix = "give every stream and every label a raw topic of its own"
            yield Problem((*where, "topic"), f"topic {topic!r} is also read by {topics[topic]}", fix)
        else:
            topics[topic] = ".".join(map(str, where))
    for name, stream in declaration.streams.items():
        path: Path = ("streams", name)
        yield from _check_records(path, stream, ("id", "time"), ())
        for index, key in enumerate(stream.keys):
            field = stream.field(key)
            if field is None:
                yield unknown((*path, "keys", index), "field", key, tuple(stream.fields))
            elif field.type in ("number", "time"):
                fix = "use a string, category, integer or boolean field"
                yield Problem((*path, "keys", index), f"a key cannot be of type {field.type}", fix)
        if stream.label is not None:
            yield from _check_records((*path, "label"), stream.label, ("id", "joins", "time"), ("joins",))
    streams = {**declared_streams, **declaration.streams}
    for name, model in declaration.models.items():
        yield from _check_model(("models", name), model, streams)


def _raw_topics(streams: Mapping[str, StreamSpec]) -> Iterator[tuple[Path, str]]:
    for name, stream in streams.items():
        yield ("streams", name), stream.topic
        if stream.label is not None:
            yield ("streams", name, "label"), stream.label.topic


def _check_records(
    path: Path, spec: StreamSpec | LabelSpec, implied: Sequence[str], joins: Sequence[str]
) -> Iterator[Problem]:
    for where, name in (*((role, getattr(spec, role)) for role in implied), *(("fields", n) for n in spec.fields)):
        if not is_identifier(name):
            place: Path = (*path, where, name) if where == "fields" else (*path, where)
            yield Problem(place, f"{name!r} is not a name", _NAME_FIX)
    for role in implied:
        name = getattr(spec, role)
        field, wanted = spec.fields.get(name), "time" if role == "time" else "string"
        if field is not None and field.type != wanted:
            message = f"{name!r} is declared as {field.type}, but it is the {role} of the record"
            yield Problem((*path, "fields", name, "type"), message, f"make it {wanted}, or leave the field out")
    if spec.time == spec.id:
        yield Problem((*path, "time"), f"{spec.time!r} is both id and time", "name the field that holds the event time")
    for name, field in spec.fields.items():
        yield from _check_field((*path, "fields", name), field)


def _check_field(path: Path, field: FieldSpec) -> Iterator[Problem]:
    if field.personal:
        message = "personal fields are refused for now, because erasing a person's data is not built yet"
        yield Problem((*path, "personal"), message, "leave the field out of the records and of this file")
    if field.type == "category":
        if not field.values:
            fix = "add `values: [...]`, or make it a string"
            yield Problem(path, "a category needs its values", fix)
        elif len(set(field.values)) < len(field.values):
            yield Problem((*path, "values"), "a value is listed twice", "list every value once")
    elif field.values is not None:
        yield Problem((*path, "values"), f"a {field.type} has no values", "make it a category, or remove `values`")
    if field.type not in ("number", "integer"):
        for bound in ("min", "max"):
            if getattr(field, bound) is not None:
                yield Problem((*path, bound), f"a {field.type} has no {bound}", f"remove `{bound}`")
    elif field.min is not None and field.max is not None and field.min > field.max:
        yield Problem((*path, "min"), f"min {field.min} is greater than max {field.max}", "swap them")


_NAME_FIX: Final = "use letters, digits, `.`, `_` and `-`, begin with a letter or digit, at most 128"


VOCABULARY: Final[Vocabulary] = {
    "field_type": FIELD_TYPES,
    "time_part": tuple(TIME_PARTS),
    "aggregation": tuple(row.name for row in AGGREGATIONS),
    "task": ("binary", "multiclass", "regression"),
    "estimator": tuple(row.name for row in ESTIMATORS),
    "metric": tuple(metric.name for metric in METRICS),
    "statistic": tuple(row.name for row in STATISTICS),
    "detector": tuple(row.name for row in DETECTORS),
    "trigger": ("drift", "decay", "schedule"),
    "risk": ("automatic", "approval"),
}
"""The words that a user may write, by kind."""


def schema() -> dict[str, Any]:
    """JSON Schema of what may be declared today, with every word that there is."""
    return declaration_schema(VOCABULARY)


def _check_model(path: Path, model: ModelSpec, streams: Mapping[str, StreamSpec]) -> Iterator[Problem]:
    try:
        compile_plan(model, streams)
    except PlanError as error:
        yield from (Problem((*path, *problem.path), problem.message, problem.fix) for problem in error.problems)
    if model.task == "multiclass":
        fix = "use binary (`field op number`) or regression (`field`)"
        yield Problem((*path, "task"), "multiclass models are not built yet", fix)
        return
    yield from _check_fits((*path, "metric"), "metric", model.metric_name, model.task, METRICS)
    for index, candidate in enumerate(model.candidate_names):
        yield from _check_fits((*path, "candidates", index), "candidate", candidate, model.task, ESTIMATORS)
    monitoring = (*path, "monitoring")
    yield from _check_parameters((*monitoring, "statistics"), model.monitoring.statistics, STATISTICS)
    yield from _check_parameters((*monitoring, "detectors"), model.monitoring.detectors, DETECTORS)
    retraining = model.retraining
    if model.stream not in streams:
        return
    label = streams[model.stream].label
    if label is None:
        fix = f"add `label:` to stream {model.stream!r}: topic, id, joins, time, horizon, fields"
        yield Problem((*path, "stream"), f"stream {model.stream!r} has no label", fix)
        return
    needed_us = retraining.holdout_us + label.horizon_us
    if retraining.first_after.span_us <= needed_us:
        fix = f"make it longer than holdout plus label horizon, {format_duration(needed_us)}"
        yield Problem((*path, "retraining", "first_after", "span"), "no rows would be left to train on", fix)
    if retraining.max_span_us is not None and retraining.max_span_us <= needed_us:
        fix = f"make it longer than holdout plus label horizon, {format_duration(needed_us)}"
        yield Problem((*path, "retraining", "max_span"), "no rows would be left to train on", fix)
    where = (*path, "label")
    try:
        rule = parse_label(model.label)
    except ValueError:
        fix = "write `field` or `field op number`, such as arr_delay > 15"
        yield Problem(where, f"{model.label!r} is not a label", fix)
        return
    field = label.field(rule.field)
    if field is None:
        yield unknown(where, "label field", rule.field, tuple(label.fields))
    elif field.type not in ("number", "integer", "boolean"):
        yield Problem(where, f"{rule.field!r} is of type {field.type}", "use a number, integer or boolean field")
    elif model.task == "binary" and rule.operator is None and field.type != "boolean":
        yield Problem(where, "a binary label is true or false", f"compare it, such as `{rule.field} > 0`")
    elif model.task == "regression" and (rule.operator is not None or field.type == "boolean"):
        yield Problem(where, "a regression label is a number", "name a number field without comparing it")


class _Row(Protocol):
    """A row of a catalogue whose words fit some tasks."""

    @property
    def name(self) -> str: ...

    @property
    def tasks(self) -> tuple[str, ...]: ...


def _check_fits(path: Path, what: str, word: str, task: str, catalogue: Sequence[_Row]) -> Iterator[Problem]:
    fitting = [row.name for row in catalogue if task in row.tasks]
    if word not in fitting:
        yield Problem(path, f"{word} is no {what} of a {task} model", f"use {' or '.join(fitting)}")


class _Measuring(Protocol):
    """A row of a catalogue with parameters that a policy may set."""

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, Parameter]: ...


def _check_parameters(
    path: Path, given: Mapping[str, Mapping[str, float]] | None, catalogue: Sequence[_Measuring]
) -> Iterator[Problem]:
    rows = {row.name: row for row in catalogue}
    for name, parameters in (given or {}).items():
        for parameter, value in parameters.items():
            try:
                completed(name, rows[name].parameters, {parameter: value})
            except UnusableParameter as error:
                yield Problem((*path, name, parameter), error.message, error.fix)


class _Unreadable(Exception):
    def __init__(self, line: int, message: str, fix: str, path: Path = ()) -> None:
        super().__init__(message)
        self.problem = DeclarationProblem(line, _dotted(path), message, fix)


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own attribute)


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]{1,300}$", list("-+0123456789")),
    ("tag:yaml.org,2002:float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def _read(text: str, lines: dict[Path, int]) -> object:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _Unreadable(1, f"the file is larger than {MAX_BYTES} bytes", "split it")
    try:
        for depth, token in _depths(text):
            if isinstance(token, yaml.AliasEvent) or getattr(token, "anchor", None) is not None:
                raise _Unreadable(_line(token), "anchors and aliases are not read", "write it out")
            if depth > _MAX_DEPTH:
                raise _Unreadable(_line(token), "this is nested too deeply", "remove a level")
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise _Unreadable(mark.line + 1 if mark else 1, f"this is not YAML: {problem}", "correct it") from None
    except yaml.YAMLError as error:
        raise _Unreadable(1, f"this is not YAML: {str(error).splitlines()[0]}", "correct it") from None
    if node is None:
        raise _Unreadable(1, "the file is empty", "declare at least one stream")
    if not isinstance(node, yaml.MappingNode):
        raise _Unreadable(node.start_mark.line + 1, "the file is not a mapping", "begin with `streams:` or `models:`")
    return _value(node, (), lines)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _depths(text: str) -> Iterator[tuple[int, yaml.Event]]:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        yield depth, event


def _value(node: yaml.Node, path: Path, lines: dict[Path, int]) -> object:
    line = lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Unreadable(key_line, "a key is not a text", "write `name: value`", path)
            key = str(key_node.value)
            if key in mapping:
                raise _Unreadable(key_line, f"{key!r} is given twice", "keep one of them", (*path, key))
            lines[(*path, key)] = key_line
            mapping[key] = _value(value_node, (*path, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*path, index), lines) for index, child in enumerate(node.value)]
    scalar = str(node.value)
    match node.tag:
        case "tag:yaml.org,2002:null":
            return None
        case "tag:yaml.org,2002:bool":
            return scalar.lower() == "true"
        case "tag:yaml.org,2002:int":
            return int(scalar)
        case "tag:yaml.org,2002:float":
            return float(scalar)
        case "tag:yaml.org,2002:str":
            return scalar
    raise _Unreadable(line, f"the tag {node.tag!r} is not read", "remove it", path)


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _placed(problem: Problem, lines: Mapping[Path, int]) -> DeclarationProblem:
    path = problem.path
    while path not in lines:
        path = path[:-1]
    return DeclarationProblem(lines[path], _dotted(problem.path), problem.message, problem.fix)


def _invalid(details: ErrorDetails) -> Problem:
    """One of pydantic's errors in our words; union tags, which no user wrote, are taken out of the path."""
    kind, message = details["type"], details["msg"]
    path: list[str | int] = []
    model: Any = Declaration
    parent: Any = None
    for position, part in enumerate(details["loc"]):
        is_last = position == len(details["loc"]) - 1
        if part == "[key]":
            model = next(iter(get_args(_bare(parent))), None)
            continue
        if (member := _chosen(model, part)) is not None:
            model = member
            continue
        path.append(part)
        parent = model
        if not (is_last and kind == "extra_forbidden"):
            model = _inner(model, part)
    found = tuple(path)
    match kind:
        case "extra_forbidden":
            known = _keys(model)
            near = difflib.get_close_matches(str(found[-1]), known, n=1)
            fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
            return Problem(found, f"{found[-1]!r} is not known here", fix)
        case "missing":
            return Problem(found, "this is missing", f"add `{found[-1]}:`")
        case "unknown_word":
            return _not_one_of(found, details["input"], details["ctx"]["known"])
        case "string_pattern_mismatch" if (kind_of := _kind_of(model)) is not None:
            return _not_one_of(found, details["input"], VOCABULARY[kind_of])
        case "string_pattern_mismatch":
            return Problem(found, f"{details['input']!r} is not a name", _NAME_FIX)
        case "feature_kind":
            given = details["input"] if isinstance(details["input"], Mapping) else ()
            near = [m for key in given for m in difflib.get_close_matches(str(key), FEATURE_KEYS, n=1)]
            fix = f"did you mean `{near[0]}`?" if near else "begin it with one of them"
            return Problem(found, message, fix)
        case "dict_type" | "model_type" | "model_attributes_type":
            return Problem(found, "a mapping is expected here", "write `key: value` lines below it")
        case "tuple_type":
            return Problem(found, "a list is expected here", "write it as `[a, b]`")
        case "string_type":
            return Problem(found, f"{details['input']!r} is not a text", "write a text, in quotes if need be")
    return Problem(found, message[:1].lower() + message[1:], f"change {details['input']!r}"[:200])


def _not_one_of(path: Path, found: object, known: Sequence[str]) -> Problem:
    *heads, last = (repr(word) for word in known)
    expected = f"{', '.join(heads)} or {last}" if heads else last
    near = difflib.get_close_matches(str(found), known, n=1)
    fix = f"did you mean {near[0]!r}?" if near else f"use {expected}"
    return Problem(path, f"{found!r} is not one of {expected}", fix)


def _kind_of(annotation: Any) -> str | None:
    """The kind of word that a type stands for."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next((kind for member in get_args(annotation) if (kind := _kind_of(member)) is not None), None)
    if get_origin(annotation) is not Annotated:
        return None
    for extra in (getattr(part, "json_schema_extra", None) for part in annotation.__metadata__):
        if isinstance(extra, dict) and WORDS_OF in extra:
            return str(extra[WORDS_OF])
    return _kind_of(get_args(annotation)[0])


def _inner(annotation: Any, part: object) -> Any:
    """The type behind one step of a path: a model's field, a mapping's value, a sequence's item."""
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part in (name, field.alias):
                return Annotated[field.annotation, field]  # which knows the kind of a word
        return None
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, Mapping) and len(arguments) == 2:
        return arguments[1]
    return arguments[0] if arguments else None


def _chosen(annotation: Any, tag: object) -> Any:
    """The member of a union that a tag stands for; `None` if this is no union."""
    annotation = _bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        if tag == OTHER_FEATURE:
            return OtherFeature
        return next((member for member in get_args(annotation) if tag in _keys(member)), None)
    return None


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _keys(annotation: Any) -> tuple[str, ...]:
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return tuple(field.alias or name for name, field in annotation.model_fields.items())
    return ()
