"""A record is accepted or refused the same whether one call checks it or each field does: same values, same fault.

First every nasty spelling in every kind of field, one by one. Then generated declarations and records: as declared, nearly
so, hostile, with bytes changed, with headers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel.contracts.declaration import FieldSpec, LabelSpec, StreamSpec
from evenkeel.contracts.envelope import Headers
from evenkeel.libs.fields import Fault
from evenkeel.services.ingest.domain.contract import Contract
from evenkeel.services.ingest.domain.fast_check import fast_check

Spec = StreamSpec | LabelSpec

# -- what is compared --------------------------------------------------------------------------------------------------


def outcome(contract: Contract, value: bytes, headers: Headers = ()) -> tuple[Any, ...]:
    """All that ingest sees of a record; `repr` tells 1 from 1.0 and True, and -0.0 from 0.0."""
    try:
        checked = contract.check(value, headers)
    except Fault as fault:
        return fault.rule, fault.field, fault.reason, fault.fix, fault.event_id
    assert type(checked.fields) is dict
    return checked.record_id, checked.event_id, checked.time_us, repr(checked.fields), checked.digest()


def assert_same(spec: Spec, value: bytes, headers: Headers = ()) -> tuple[Any, ...]:
    one_by_one = outcome(Contract(spec, in_one_call=False), value, headers)
    assert outcome(Contract(spec), value, headers) == one_by_one
    return one_by_one


def stream(fields: dict[str, FieldSpec]) -> StreamSpec:
    return StreamSpec.model_validate({"topic": "raw", "id": "id", "time": "at", "fields": fields})


def labels(fields: dict[str, FieldSpec]) -> LabelSpec:
    common = {"topic": "raw", "id": "id", "joins": "of", "time": "at", "horizon": "1d"}
    return LabelSpec.model_validate(common | {"fields": fields})


def record(members: Iterable[tuple[str, str]]) -> bytes:
    """A JSON object of members that are JSON texts."""
    text = "{" + ",".join(f"{name}:{value}" for name, value in members) + "}"
    return text.encode("utf-8", "surrogateescape")


GIVEN: Final = [('"id"', '"o-1"'), ('"at"', '"2013-01-01T05:15:00Z"')]

# -- kinds of fields ---------------------------------------------------------------------------------------------------

EDGES: Final = (0.0, -0.5, 1000.0, 2.0**53, -(2.0**53), 2.0**63, 1e300)
RANGES: Final = [
    (None, None),
    *((edge, None) for edge in EDGES),
    *((None, edge) for edge in EDGES),
    (0.0, 1000.0),
    (0.0, -0.0),
    (0.2, 0.8),
    (3.0, 2.0),
    (-(2.0**53), 2.0**53),
    (-(2.0**63), 2.0**63),
]
FIELDS: Final = [
    *(FieldSpec(type="number", min=low, max=high) for low, high in RANGES),
    *(FieldSpec(type="integer", min=low, max=high) for low, high in RANGES),
    FieldSpec(type="string"),
    FieldSpec(type="boolean"),
    FieldSpec(type="time"),
    FieldSpec(type="category"),
    FieldSpec(type="category", values=("web", "", "\u00fc", 'a"b', "\U0001f600", "1", "null", "web")),
    FieldSpec(type="category", values=tuple(str(number) for number in range(2000))),
]

# -- spellings of values -----------------------------------------------------------------------------------------------

# An undecodable byte is written as the surrogate that `surrogateescape` turns into it.
TEXTS: Final = [
    *(
        '""',
        '"a b"',
        '"a\\n"',
        '"o-1"',
        f'"{"x" * 128}"',
        f'"{"x" * 129}"',
        '"\\u0061"',
        '"\\/"',
        "'a'",
        '"1"',
        '"true"',
    ),
    *(
        '"\\u0000"',
        '"\\\\u0000"',
        '"\\\\\\u0000"',
        '"\x00"',
        '"\t"',
        '"\n"',
        '"\x7f"',
        '"\\x"',
        '"\\u00"',
        '"a',
        '"\\"',
    ),
    *('"\\ud800"', '"\\udc00"', '"\\ud83d\\ude00"', '"\\ud83d\\ud83d"', '"\\uD83D\\uDE00"', '"\U0001f600"', '"\ufeff"'),
    *('"\udcff"', '"\udcc0\udc80"', '"\udced\udca0\udc80"', '"\udcf4\udc90\udc80\udc80"', '"\udcc3"', '"\u00fc"'),
    *('"web"', '"WEB"', '"w\\u0065b"', '"a\\"b"', '"null"', '"1999"', '"2000"', f'"{"é" * 3000}"', f'"{"x" * 65_536}"'),
    *(
        '"2013-01-01T05:15:00Z"',
        '"2013-01-01T05:15:00.5Z"',
        '"2013-01-01T05:15:00.123456Z"',
        '"2013-01-01T05:15:00+01:00"',
    ),
    *(
        '"2013-01-01T05:15:00.1234567Z"',
        '"2013-01-01T05:15:00"',
        '"2013-01-01"',
        '"2013-02-30T05:15:00Z"',
        '"tomorrow"',
    ),
    *('"2013-01-01t05:15:00z"', '"2013-01-01 05:15:00Z"', '"2013-01-01T23:59:60Z"', '"2013-01-01T24:00:00Z"'),
    *(
        '"2013-01-01T05:15:00.\u0663\u0663\u0663\u0663\u0663\u0663Z"',
        '"2013-01-01T05:15:00\\u005a"',
        '"\u0662013-01-01T0:0:0Z"',
    ),
    *('"1900-01-01T00:00:00Z"', '"1899-12-31T23:59:59Z"', '"2999-12-31T00:00:00Z"', '"2999-12-31T00:00:01Z"'),
    *('"9999-12-31T23:59:59-14:00"', '"0001-01-01T00:00:00+14:00"', '"10000-01-01T00:00:00Z"'),
]
_NUMBERS: Final = """
0 -0 0.0 -0.0 1 -1 1.0 2.5 1e2 1E+2 1e-2 0.1 0.5 0.49999999999999994 1e-400 5e-324 999.9999999999999 1000 1000.0 1e3
1000.0000000000001 1001 9007199254740991 9007199254740991.0 9007199254740992 9007199254740992.0 9007199254740993
9007199254740993.0 9007199254740994 -9007199254740991 -9007199254740992 -9007199254740993 9223372036854774784
9223372036854775807 9223372036854775808 9223372036854775808.0 -9223372036854775808 -9223372036854775809
18446744073709551615 18446744073709551616 1e18 1e19 1e300 1e308 1.7976931348623157e308 1.7976931348623159e308 1e999 -1e999
1e99999999999 NaN Infinity -Infinity nan 01 -01 00 1. .5 +1 - 0x10 1_0 1e 1e+
"""
NUMBERS: Final = [
    *_NUMBERS.split(),
    *("1 0", "1" + "0" * 400, "0." + "0" * 400 + "1", "1" + "0" * 400 + "e-400", "0.1" + "0" * 1000 + "1"),
]
OTHERS: Final = [
    *(
        "null",
        "true",
        "false",
        "True",
        "nul",
        "NULL",
        "undefined",
        "",
        " ",
        "[]",
        "{}",
        "[1]",
        '["web"]',
        '{"a":1}',
        "[",
        "}",
    ),
    *("[" * 31 + "]" * 31, "[" * 32 + "]" * 32, "[" * 1200 + "]" * 1200, '{"a":' * 40 + "1" + "}" * 40),
    *(
        '1,"id":"o-2"',
        '1,"f":null',
        'null,"f":1',
        '"web","f":5',
        "1,",
        "1}{",
        "1} ",
        "1}\x00",
        "1}//",
        "1/**/",
        "\ufeff1",
    ),
]
NASTY: Final = [*TEXTS, *NUMBERS, *OTHERS]


def near(field: FieldSpec) -> list[str]:
    """A field's bounds, with a double and a whole number to each side."""
    ends = [end for end in (field.min, field.max) if end is not None]
    doubles = [x for end in ends for x in (end, math.nextafter(end, math.inf), math.nextafter(end, -math.inf))]
    return [*map(repr, doubles), *(str(math.floor(end) + step) for end in ends for step in (-1, 0, 1))]


def name_of(field: FieldSpec) -> str:
    return f"{field.type} {field.min} to {field.max}, {len(field.values or ())} values"


# -- one by one --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("field", FIELDS, ids=name_of)
def test_a_nasty_value_of_a_declared_field(field: FieldSpec, required: bool) -> None:
    spec = stream({"f": field.model_copy(update={"required": required})})
    in_one_call, one_by_one = Contract(spec), Contract(spec, in_one_call=False)
    for spelled in (*NASTY, *near(field)):
        for members in (
            [*GIVEN, ('"f"', spelled)],
            [(' "f" ', f" {spelled} "), *GIVEN],
            [('"\\u0066"', spelled), *GIVEN],
        ):
            value = record(members)
            assert outcome(Contract(spec), value) == outcome(one_by_one, value), spelled[:80]
            # However many it refused before, so that it does not try them all.
            assert outcome(in_one_call, value) == outcome(one_by_one, value), spelled[:80]


@pytest.mark.parametrize("name", ["id", "of", "at"])
def test_a_nasty_id_or_time(name: str) -> None:
    for listed in (
        {},
        {"id": FieldSpec(type="integer"), "at": FieldSpec(type="time"), "of": FieldSpec(type="category")},
    ):
        spec = labels({"f": FieldSpec(type="string"), **listed})
        for spelled in NASTY:
            members = [
                (f'"{known}"', spelled if known == name else value) for known, value in (*GIVEN, ('"of"', '"o-2"'))
            ]
            assert_same(spec, record([(known.replace('""', '"'), value) for known, value in members]))
            assert_same(spec, record([*GIVEN, ('"of"', '"o-2"'), (f'"{name}"', spelled)]))


def test_a_nasty_value_or_name_of_an_undeclared_field() -> None:
    spec = stream({"f": FieldSpec(type="number")})
    for spelled in NASTY:
        assert_same(spec, record([*GIVEN, ('"x"', spelled)]))
        assert_same(spec, record([('"x"', f'{{"y":[{spelled}]}}'), *GIVEN]))
        assert_same(spec, record([(spelled, "1"), *GIVEN]))
        assert_same(spec, record(GIVEN) + spelled.encode("utf-8", "surrogateescape"))
        assert_same(spec, spelled.encode("utf-8", "surrogateescape") + record(GIVEN))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537])
def test_the_largest_record(size: int) -> None:
    spec = stream({"f": FieldSpec(type="string")})
    empty = record([*GIVEN, ('"f"', '""')])
    value = empty[:-2] + b"x" * (size - len(empty)) + b'"}'
    assert len(value) == size
    assert (assert_same(spec, value)[0] == "size") is (size > 65_536)


def test_whole_numbers_of_2_to_the_53_and_more_are_never_rounded() -> None:
    spec = stream({"f": FieldSpec(type="number", required=True)})
    for whole, rule in (
        (2**53 - 1, None),
        (2**53, None),
        (2**53 + 1, "type"),
        (-(2**53) - 1, "type"),
        (2**54 + 2, "type"),
    ):
        found = assert_same(spec, record([*GIVEN, ('"f"', str(whole))]))
        assert found[0] == (rule or "o-1")
        assert rule or f"'f': {float(whole)}" in found[3]


def test_a_declared_time_is_read_before_it_is_accepted() -> None:
    spec = stream({"f": FieldSpec(type="time")})
    assert assert_same(spec, record([*GIVEN, ('"f"', '"2013-02-29T00:00:00Z"')]))[:2] == ("type", "f")
    assert assert_same(spec, record([*GIVEN, ('"f"', '"2012-02-29T00:00:00Z"')]))[0] == "o-1"


def test_after_many_refused_records_one_in_64_is_tried_and_a_good_one_ends_that() -> None:
    spec = stream({"f": FieldSpec(type="number")})
    read = fast_check(fields_of(spec), taken_as_text(spec))
    assert read is not None
    undeclared, good = record([*GIVEN, ('"x"', "1")]), record(GIVEN)
    assert all(read(undeclared) is None for _ in range(1000))
    assert [read(good) is not None for _ in range(200)].index(True) < 64
    assert all(read(good) is not None for _ in range(200))
    assert read(undeclared) is None
    assert [read(good) is not None for _ in range(3)] == [False, True, True]


# -- generated ---------------------------------------------------------------------------------------------------------

SPELLED: Final = st.booleans().flatmap(
    lambda ascii_only: st.text().map(lambda text: json.dumps(text, ensure_ascii=ascii_only))
)
NAMES: Final = ["a", "0", "a.b", "a-b", "class", "None", "field_0", "x" * 128]


@st.composite
def declarations(draw: st.DrawFn) -> Spec:
    names = draw(st.lists(st.sampled_from([*NAMES, "id", "of", "at"]), min_size=1, max_size=4, unique=True))
    required, known = draw(st.integers(0, 15)), st.sampled_from(FIELDS)
    fields = {
        name: draw(known).model_copy(update={"required": bool(required >> n & 1)}) for n, name in enumerate(names)
    }
    return draw(st.sampled_from([stream, labels]))(fields)


def fields_of(spec: Spec) -> dict[str, FieldSpec]:
    """As Contract has them: those declared, then those implied."""
    return {name: field for name in dict.fromkeys([*spec.fields, "at", "id", "of"]) if (field := spec.field(name))}


def taken_as_text(spec: Spec) -> set[str]:
    return {"id", "at", "of"} if isinstance(spec, LabelSpec) else {"id", "at"}


def as_declared(spec: Spec, name: str) -> st.SearchStrategy[str]:
    """Spellings of a field's values that one call reads."""
    field = spec.field(name)
    assert field is not None
    if name in taken_as_text(spec):
        return st.just('"2013-01-01T05:15:00Z"' if name == "at" else '"o-1"')
    low, high = -math.inf if field.min is None else field.min, math.inf if field.max is None else field.max
    match field.type:
        case "number":
            low, high = max(low, 1 - 2.0**53), min(high, 2.0**53 - 1)
            return st.floats(low, high).map(repr) if low < high else st.nothing()
        case "integer":
            least, most = math.ceil(max(low, -(2.0**63))), math.floor(min(high, 2.0**63 - 1024))
            return st.integers(least, most).map(str) if least <= most else st.nothing()
        case "boolean":
            return st.sampled_from(["true", "false"])
        case "time":
            return st.datetimes().map(lambda moment: f'"{moment.isoformat()}Z"')
        case "category":
            return st.sampled_from(field.values).map(json.dumps) if field.values else st.nothing()
    return SPELLED.filter(lambda spelled: "\\u0000" not in spelled)


@st.composite
def good_records(draw: st.DrawFn, spec: Spec) -> bytes:
    members = []
    for name, field in fields_of(spec).items():
        values = as_declared(spec, name)
        if name not in taken_as_text(spec) and not field.required:
            values = st.sampled_from(["", "null"]) | values
        if spelled := draw(values):
            members.append((json.dumps(name), spelled))
    return record(draw(st.permutations(members)))


@st.composite
def records(draw: st.DrawFn, spec: Spec) -> bytes:
    """About one field in four is not as declared; some come twice, some are not declared at all."""
    members = []
    for name, field in fields_of(spec).items():
        values, way = as_declared(spec, name), draw(st.integers(0, 15))
        if way < 4 or values.is_empty:
            values = st.sampled_from([*NASTY, *near(field)]) | SPELLED | st.floats().map(repr) | st.integers().map(str)
        if way != 4:
            members.append((json.dumps(name), draw(values)))
        if way == 5:
            members.append((f'"\\u{ord(name[0]):04x}{name[1:]}"', draw(values)))
        if way == 6:
            members.append((draw(SPELLED), draw(st.sampled_from(NASTY))))
    return record(draw(st.permutations(members)))


def made_for(spec: Spec) -> st.SearchStrategy[tuple[Spec, bytes]]:
    return st.tuples(st.just(spec), good_records(spec) | records(spec))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_as_declared_is_read_in_one_call(data: st.DataObject) -> None:
    spec = data.draw(declarations().filter(is_possible))
    value = data.draw(good_records(spec))
    assert assert_same(spec, value)[1:3] == ("o-1", 1_357_017_300_000_000)
    read = fast_check(fields_of(spec), taken_as_text(spec))
    assert read is not None and read(value) is not None


def is_possible(spec: Spec) -> bool:
    """Whether msgspec can express the declaration, and there is a record that fits it."""
    return fast_check(fields_of(spec), taken_as_text(spec)) is not None and not any(
        field.required and as_declared(spec, name).is_empty for name, field in fields_of(spec).items()
    )


@settings(max_examples=600, deadline=None)
@given(declarations().flatmap(made_for))
def test_one_call_and_each_field_agree(made: tuple[Spec, bytes]) -> None:
    assert_same(*made)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["number", "integer"]), st.floats(allow_nan=False, allow_infinity=False), st.data())
def test_they_agree_at_any_bound(kind: Any, bound: float, data: st.DataObject) -> None:
    other = data.draw(st.none() | st.floats(allow_nan=False, allow_infinity=False))
    field = FieldSpec(type=kind, min=bound, max=other) if data.draw(st.booleans()) else FieldSpec(type=kind, max=bound)
    values = st.sampled_from(near(field)) | st.floats().map(repr) | st.integers().map(str)
    assert_same(stream({"f": field}), record([*GIVEN, ('"f"', data.draw(values))]))


@settings(max_examples=400, deadline=None)
@given(declarations().flatmap(made_for), st.data())
def test_they_agree_when_bytes_are_changed(made: tuple[Spec, bytes], data: st.DataObject) -> None:
    spec, value = made
    found = bytearray(value)
    for _ in range(data.draw(st.integers(1, 3))):
        at, size = data.draw(st.integers(0, len(found))), data.draw(st.integers(0, 2))
        found[at : at + size] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b"{", b",", b"\xed\xa0", b"0", b"e9"])
        )
    assert_same(spec, bytes(found))


HEADERS: Final[list[tuple[str, bytes | None]]] = [
    ("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"),
    ("Content-Type", b"application/json"),
    ("content-type", b" Application/CloudEvents+JSON; charset=utf-8"),
    ("content-type", None),
    ("ce_id", b"o-9"),
    ("CE_ID", b"\xff"),
    ("ce_time", b"2013-01-01T05:15:00Z"),
    ("ce_time", None),
]


@settings(max_examples=300, deadline=None)
@given(declarations().flatmap(made_for), st.lists(st.sampled_from(HEADERS), max_size=3), st.booleans())
def test_they_agree_whatever_the_headers_say(made: tuple[Spec, bytes], headers: Headers, wrapped: bool) -> None:
    spec, value = made
    if wrapped:
        value = b'{"specversion":"1.0","id":"o-9","time":"2013-01-01T05:15:00Z","data":' + value + b"}"
    assert_same(spec, value, headers)
