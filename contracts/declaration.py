"""What a user writes: streams, features, models and policies, as frozen models with a published JSON Schema.

Durations are written as text (`90s`, `15m`, `24h`, `7d`) and held as an `int` of microseconds; the attribute says so
(`horizon_us`), the written key does not (`horizon`). Dumping gives the written form back, so that
`Declaration.model_validate(declaration.model_dump())` is the same declaration.

A declaration is read in two ways. At the door, where a user writes it, unknown keys and unknown words are errors
(`read_declaration`; which words exist is told by who knows: the caller). Everybody else reads what passed the door, perhaps
that of a newer release, as data: what he does not know is kept and given back when it is dumped, never refused.
Checks that need more than one model at a time (does the field exist, is the label there) live in `evenkeel.libs.declaration`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from evenkeel.contracts.payload import NAME_PATTERN, FieldName, Finite, Identifier, Word

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

_UNITS_US: Final[dict[str, int]] = {"ms": 1_000, "s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")


LONGEST_US: Final = 36_500 * DAY_US
"""No duration is longer, so that every service can add one to any time that it takes."""


def parse_duration_us(text: str) -> int:
    """Microseconds of a written duration; raises `ValueError` when it is not a whole number with a unit.

    >>> parse_duration_us("24h")
    86400000000
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a whole number with ms, s, m, h or d, such as 90s or 24h")
    if (duration_us := int(match[1]) * _UNITS_US[match[2]]) > LONGEST_US:
        raise ValueError(f"{text[:40]!r} is longer than a hundred years, 36500d")
    return duration_us


def format_duration(duration_us: int) -> str:
    """The written form of a duration: the largest unit that divides it, with hours up to (not including) two days.

    >>> format_duration(86_400_000_000), format_duration(172_800_000_000)
    ('24h', '2d')
    """
    if duration_us >= 2 * DAY_US and duration_us % DAY_US == 0:
        return f"{duration_us // DAY_US}d"
    for unit in ("h", "m", "s"):
        if duration_us >= _UNITS_US[unit] and duration_us % _UNITS_US[unit] == 0:
            return f"{duration_us // _UNITS_US[unit]}{unit}"
    return "0s" if duration_us == 0 else f"{duration_us // 1_000}ms"


def _duration_us(value: object) -> int:
    if isinstance(value, str):
        try:
            return parse_duration_us(value)
        except ValueError as error:
            raise PydanticCustomError("duration", "{reason}", {"reason": str(error)}) from None
    if value == 0 and isinstance(value, int) and not isinstance(value, bool):
        return 0
    raise PydanticCustomError("duration", "a duration needs a unit; write it like 90s, 15m, 24h or 7d")


def _listed(kind: str) -> Callable[[str, ValidationInfo], str]:
    """A word that must be in the list of its kind, where a door hands in lists (`context`); any other reader takes any."""

    def check(word: str, info: ValidationInfo) -> str:
        known = None if info.context is None else info.context.get(kind)
        if known is not None and word not in known:
            raise PydanticCustomError("unknown_word", "{word} is not known", {"word": word, "known": tuple(known)})
        return word

    return check


def _words(kind: str) -> Any:
    return Field(json_schema_extra={WORDS_OF: kind})


WORDS_OF: Final = "x-words"
"""Key of a JSON Schema that names the kind of a word."""
FieldType: TypeAlias = Annotated[Word, AfterValidator(_listed("field_type")), _words("field_type")]
TimePart: TypeAlias = Annotated[Word, AfterValidator(_listed("time_part")), _words("time_part")]
Aggregation: TypeAlias = Annotated[Word, AfterValidator(_listed("aggregation")), _words("aggregation")]
Task: TypeAlias = Annotated[Word, AfterValidator(_listed("task")), _words("task")]
DriftStatistic: TypeAlias = Annotated[Word, AfterValidator(_listed("statistic")), _words("statistic")]
ChangeDetector: TypeAlias = Annotated[Word, AfterValidator(_listed("detector")), _words("detector")]
Parameters: TypeAlias = dict[Word, Finite]
Candidate: TypeAlias = Annotated[Word, AfterValidator(_listed("estimator")), _words("estimator")]
Metric: TypeAlias = Annotated[Word, AfterValidator(_listed("metric")), _words("metric")]
Trigger: TypeAlias = Annotated[Word, AfterValidator(_listed("trigger")), _words("trigger")]
Risk: TypeAlias = Annotated[Word, AfterValidator(_listed("risk")), _words("risk")]

Vocabulary: TypeAlias = Mapping[str, Sequence[str]]
"""Kind → the words that a door takes: field_type, time_part, aggregation, task, estimator, metric, trigger, risk."""

DurationUs: TypeAlias = Annotated[
    int,
    BeforeValidator(_duration_us),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]{1,12}(ms|s|m|h|d)$", "examples": ["90s", "15m", "24h", "7d"]}
    ),
]


class Spec(BaseModel):
    """Base of everything written: immutable; a key that this release does not know is kept."""

    model_config = ConfigDict(frozen=True, extra="allow", serialize_by_alias=True, allow_inf_nan=False)

    def written(self) -> dict[str, Any]:
        """As JSON that this model is read from, with the defaults of this release and every unknown key."""
        return self.model_dump(mode="json")


class FieldSpec(Spec):
    """One field of a record. `values` lists the categories in code order; `time` values are RFC 3339 texts."""

    type: FieldType
    min: float | None = None
    max: float | None = None
    values: tuple[str, ...] | None = None
    required: bool = False
    personal: bool = False


class LabelSpec(Spec):
    """The records that tell, later, what happened: `joins` is the label record's field that holds the event's id."""

    topic: Identifier
    id: FieldName
    joins: FieldName
    time: FieldName
    horizon_us: DurationUs = Field(alias="horizon", gt=0)
    fields: dict[FieldName, FieldSpec] = Field(min_length=1)

    def field(self, name: str) -> FieldSpec | None:
        """The field's specification; the id, join and time fields exist without being listed."""
        return self.fields.get(name) or _implied(name, self.time, (self.id, self.joins))


class StreamSpec(Spec):
    """One stream of events: where it is read, what identifies and dates an event, and what its fields may hold.

    `disorder_us`: how far behind the largest event time of its raw partition an event may come and still be in order.
    `lateness_us`: how far behind the watermark an event may be and still count (later ones are rejected).
    `max_ahead_us`: how far beyond the stream's watermark an event may be (further ones are rejected).
    `wait_us`: wall-clock silence after which a raw partition no longer holds the watermark back.
    """

    topic: Identifier
    id: FieldName
    time: FieldName
    disorder_us: DurationUs = Field(default=0, alias="disorder")
    lateness_us: DurationUs = Field(default=0, alias="lateness")
    max_ahead_us: DurationUs = Field(default=7 * DAY_US, alias="max_ahead", gt=0)
    wait_us: DurationUs = Field(default=60 * SECOND_US, alias="wait", gt=0)
    keys: tuple[FieldName, ...] = ()
    fields: dict[FieldName, FieldSpec] = Field(min_length=1)
    label: LabelSpec | None = None

    def field(self, name: str) -> FieldSpec | None:
        """The field's specification; the id and time fields exist without being listed."""
        return self.fields.get(name) or _implied(name, self.time, (self.id,))


def _implied(name: str, time: str, ids: tuple[str, ...]) -> FieldSpec | None:
    if name == time:
        return FieldSpec(type="time", required=True)
    return FieldSpec(type="string", required=True) if name in ids else None


class PassthroughFeature(Spec):
    """Fields that are numbers (or booleans, as 0 and 1) and are used as they are."""

    fields: tuple[FieldName, ...] = Field(min_length=1)


class TimePartsFeature(Spec):
    """Parts of a time field, in UTC: hour 0–23, minute of day 0–1439, weekday 0 (Monday)–6, month 1–12."""

    time: FieldName
    parts: tuple[TimePart, ...] = Field(min_length=1)


class CategoryFeature(Spec):
    """Fields as codes: the position in the declared values (unknown is -1), or a stable hash into `buckets`."""

    categories: tuple[FieldName, ...] = Field(min_length=1)
    values: tuple[str, ...] | None = Field(default=None, min_length=1)
    buckets: int | None = Field(default=None, ge=2, le=65_536)


def _entity_keys(value: object) -> object:
    """A list names fields that both records have."""
    if not isinstance(value, (list, tuple)):
        return value
    if not all(isinstance(name, str) for name in value):
        raise PydanticCustomError("entity_keys", "a list of field names is expected")
    return {name: name for name in value}


EntityKeys: TypeAlias = Annotated[
    dict[FieldName, FieldName],
    BeforeValidator(_entity_keys),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string", "pattern": NAME_PATTERN}},
                {"type": "object", "additionalProperties": {"type": "string", "pattern": NAME_PATTERN}},
            ]
        }
    ),
]


class WindowFeature(Spec):
    """Aggregates over the recent past of a stream (`of: flights.delay`) or its labels (`of: flights.label.delay`).

    `by` names the entity: a list of fields that both the source record and the event have, or a mapping
    `source field: event field` where the names differ; empty means one window over the whole stream.
    `over` lists window lengths; for `last` and `time_since_last` (seconds) it is the maximum age.
    Without a field (`of: flights`) records are counted: only `count` and `time_since_last` make sense.
    """

    of: Annotated[str, Field(min_length=1, max_length=512)]
    by: EntityKeys = {}
    compute: tuple[Aggregation, ...] = Field(min_length=1)
    over_us: tuple[DurationUs, ...] = Field(alias="over", min_length=1)
    name: Identifier | None = None

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Pairs (field of the source record, field of the event)."""
        return tuple(self.by.items())


class OtherFeature(Spec):
    """A feature of a kind that this release does not know. It can be kept, not computed; at the door it is an error."""

    @model_validator(mode="before")
    @classmethod
    def _is_no_typing_error(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is not None or not isinstance(value, Mapping):
            known = ", ".join(f"`{key}`" for key in FEATURE_KEYS)
            raise PydanticCustomError("feature_kind", "a feature needs one of the keys {known}", {"known": known})
        return value


FEATURE_KEYS: Final = ("fields", "time", "categories", "of")
"""What a feature is told by, whatever else it says."""
OTHER_FEATURE: Final = "other"


def _feature_kind(value: Any) -> str:
    has = value.__contains__ if isinstance(value, Mapping) else lambda key: hasattr(value, key)
    return next((key for key in FEATURE_KEYS if has(key)), OTHER_FEATURE)


FeatureSpec: TypeAlias = Annotated[
    Annotated[PassthroughFeature, Tag("fields")]
    | Annotated[TimePartsFeature, Tag("time")]
    | Annotated[CategoryFeature, Tag("categories")]
    | Annotated[WindowFeature, Tag("of")]
    | Annotated[OtherFeature, Tag(OTHER_FEATURE)],
    Discriminator(_feature_kind),
]


class PromotionPolicy(Spec):
    """When a candidate may replace the champion. All times are event time.

    `margin`: the metric must improve by at least this much (in the metric's unit, in its good direction).
    `confidence`: one-sided confidence that the improvement on the same unseen rows exceeds the margin.
    `bake_us`: how long a new champion is on trial; a bad epoch found within it is rolled back.
    """

    risk: Risk = "automatic"
    margin: float = Field(default=0.0, ge=0.0)
    confidence: float = Field(default=0.9, ge=0.5, lt=1.0)
    cooldown_us: DurationUs = Field(default=0, alias="cooldown")
    bake_us: DurationUs = Field(default=7 * DAY_US, alias="bake")
    max_bytes: int = Field(default=50_000_000, gt=0)


class FirstFit(Spec):
    """What the first model waits for: labelled rows, and the event time they span."""

    rows: int = Field(default=1_000, ge=50)
    span_us: DurationUs = Field(default=14 * DAY_US, alias="span")


class RetrainingPolicy(Spec):
    """When to fit again, and on what. All times are event time; a command may always ask for a run.

    `schedule_us`: the period of the trigger `schedule`. `holdout_us`: the newest part of the rows, on which neither
    candidate nor champion was trained and both are compared. `max_span_us`, `max_rows`: the newest rows used at most.
    """

    triggers: tuple[Trigger, ...] = ("drift", "decay")
    first_after: FirstFit = FirstFit()
    cooldown_us: DurationUs = Field(default=14 * DAY_US, alias="cooldown")
    schedule_us: DurationUs = Field(default=30 * DAY_US, alias="schedule", gt=0)
    budget_per_day: int = Field(default=4, ge=1)
    holdout_us: DurationUs = Field(default=7 * DAY_US, alias="holdout", gt=0)
    max_span_us: DurationUs | None = Field(default=None, alias="max_span")
    max_rows: int = Field(default=1_000_000, ge=100)


class MonitoringPolicy(Spec):
    """What is measured, and when it is called drift or decay. All times are event time.

    `windows_us`: lengths of the tumbling windows, by label time for quality and by event time for features.
    `statistics`: which statistics compare each feature with the package's profile, each with its parameters, as
    `{name: {threshold: 0.3}}`; a parameter that is left out has its default. Left out, the usual ones; none: `{}`.
    `detectors`: which detectors of change watch the champion's errors, in the same way.
    `decay_tolerance`: how much worse than its evidence the champion's metric may get (in the metric's unit).
    `cooldown_us`: no drift signal this soon after a signal or after a new champion; decay waits for its own signals only.
    """

    windows_us: tuple[DurationUs, ...] = Field(default=(DAY_US, 7 * DAY_US), alias="windows", min_length=1)
    statistics: dict[DriftStatistic, Parameters] | None = None
    detectors: dict[ChangeDetector, Parameters] | None = None
    min_samples: int = Field(default=500, ge=30)
    decay_tolerance: float = Field(default=0.02, ge=0.0)
    cooldown_us: DurationUs = Field(default=21 * DAY_US, alias="cooldown")


class ModelSpec(Spec):
    """One model: what it predicts about the events of a stream, from which features, under which policies.

    `label` is an expression over the label record's fields: `field` or `field op number`, such as `arr_delay > 15`.
    Left out, `candidates` and `metric` follow the task: see `candidate_names` and `metric_name`.
    """

    task: Task
    stream: Identifier
    label: Annotated[str, Field(min_length=1, max_length=1_024)]
    features: tuple[FeatureSpec, ...] = Field(min_length=1, max_length=500)
    candidates: tuple[Candidate, ...] | None = Field(default=None, min_length=1)
    metric: Metric | None = None
    promotion: PromotionPolicy = PromotionPolicy()
    retraining: RetrainingPolicy = RetrainingPolicy()
    monitoring: MonitoringPolicy = MonitoringPolicy()

    @property
    def candidate_names(self) -> tuple[Candidate, ...]:
        """The estimators to try, with the task's default when none were written."""
        if self.candidates is not None:
            return self.candidates
        return ("linear" if self.task == "regression" else "logistic", "hist_gradient_boosting")

    @property
    def metric_name(self) -> str:
        """The metric that decides, with the task's default when none was written."""
        return self.metric or ("mae" if self.task == "regression" else "roc_auc")


class Declaration(Spec):
    """One file: any number of streams and models."""

    streams: dict[Identifier, StreamSpec] = {}
    models: dict[Identifier, ModelSpec] = {}


def read_declaration(data: Any, words: Vocabulary) -> Declaration:
    """What a user wrote, with nothing in it that is not known; raises `pydantic.ValidationError`."""
    return Declaration.model_validate(data, extra="forbid", context=dict(words))


def declaration_schema(words: Vocabulary | None = None) -> dict[str, Any]:
    """JSON Schema of what a user may write: no other keys, and no other words if they are told."""
    schema = Declaration.model_json_schema(mode="serialization")
    del schema["$defs"][OtherFeature.__name__]
    _close(schema, words or {})
    return schema


def _close(part: Any, words: Vocabulary) -> None:
    if isinstance(part, list):
        for inner in part:
            _close(inner, words)
    elif isinstance(part, dict):
        if "properties" in part:
            part["additionalProperties"] = False
        if part.get(WORDS_OF) in words:
            part["enum"] = list(words[part[WORDS_OF]])
        if "oneOf" in part:
            part["oneOf"] = [one for one in part["oneOf"] if not one.get("$ref", "").endswith(OtherFeature.__name__)]
        for inner in part.values():
            _close(inner, words)
