"""Is a new JSON Schema of a payload, or a new OpenAPI document, compatible with the one that was published?

FULL compatibility within a major (the names are the schema registries'): a new reader reads old messages, an old reader
reads new ones. Readers ignore unknown fields, writers write exactly the declared ones. Works on the schemas pydantic makes;
a construct it does not know is incompatible unless it is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_ANNOTATIONS = {"x-words", "title", "description", "default", "example", "examples", "$defs", "format"}
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """What breaks, as `path: reason`; empty if the edit is compatible both ways."""
    forward = [
        f"{where}: {why}: readers of the published schema cannot read new messages"
        for where, why in _unreadable(new, old, new, old, "$", ())
    ]
    return refused_now(old, new) + forward


def refused_now(old: Schema, new: Schema) -> list[str]:
    """What of the old a new reader does not take (BACKWARD compatibility): all that is asked of what only people write."""
    return [
        f"{where}: {why}: old messages are no longer readable"
        for where, why in _unreadable(old, new, old, new, "$", ())
    ]


def breaking_calls(old: Schema, new: Schema) -> list[str]:
    """What breaks for callers of an OpenAPI document, as `call: reason`; empty if each of them can go on as before.

    A call stays where it is, with its role. What could be sent can still be sent; an answer keeps its fields, and those that
    are new are optional, so that a newer client reads an older service too.
    """
    problems: list[str] = []
    for path, operations in old["paths"].items():
        for method, before in operations.items():
            after = new["paths"].get(path, {}).get(method)
            found = ["it is gone"] if after is None else _breaking_call(before, after, _defs(old), _defs(new))
            problems += [f"{method.upper()} {path}: {why}" for why in found]
    return problems


def _defs(document: Schema) -> Schema:
    return {"$defs": document["components"]["schemas"]}


def _breaking_call(old: Schema, new: Schema, old_root: Schema, new_root: Schema) -> Iterator[str]:
    if old.get("x-evenkeel-role") != new.get("x-evenkeel-role"):
        yield f"its role {old.get('x-evenkeel-role')} became {new.get('x-evenkeel-role')}"
    yield from _breaking_parameters(old, new, old_root, new_root)
    yield from _breaking_body(old.get("requestBody"), new.get("requestBody"), old_root, new_root)
    for status, before in old["responses"].items():
        after = new["responses"].get(status)
        if after is None:
            if status.startswith("2"):
                yield f"it answers {status} no more"
            continue
        for media_type, content in before["content"].items():
            if media_type not in after["content"]:
                yield f"it answers {status} as {media_type} no more"
                continue
            for why in _breaking_answer(content["schema"], after["content"][media_type]["schema"], old_root, new_root):
                yield f"{status}: {why}"
    yield from (
        f"it answers {status}" for status in new["responses"] if status[0] == "2" and status not in old["responses"]
    )


def _breaking_parameters(old: Schema, new: Schema, old_root: Schema, new_root: Schema) -> Iterator[str]:
    before, after = ({(p["in"], p["name"]): p for p in call.get("parameters", ())} for call in (old, new))
    for key, parameter in before.items():
        if key not in after:
            yield f"it reads the parameter {key[1]} no more"
            continue
        for where, why in _unreadable(parameter["schema"], after[key]["schema"], old_root, new_root, key[1], ()):
            yield f"{where}: {why}"
    for key, parameter in after.items():
        if parameter["required"] and not before.get(key, {"required": False})["required"]:
            yield f"it needs the parameter {key[1]}"


def _breaking_body(old: Schema | None, new: Schema | None, old_root: Schema, new_root: Schema) -> Iterator[str]:
    if old is None or new is None:
        if old != new:
            yield "it needs a body" if old is None else "it takes no body any more"
        return
    for media_type, content in old["content"].items():
        if media_type not in new["content"]:
            yield f"it takes {media_type} no more"
            continue
        schema = new["content"][media_type]["schema"]
        for where, why in _unreadable(content["schema"], schema, old_root, new_root, "$", ()):
            yield f"{where}: {why}: what could be sent is refused"


def _breaking_answer(old: Schema, new: Schema, old_root: Schema, new_root: Schema) -> Iterator[str]:
    for where, why in _unreadable(old, new, old_root, new_root, "$", ()):
        yield f"{where}: {why}: newer clients cannot read answers of this release"
    # An answer has all its fields, also those that a client could do without: none may leave.
    old_root, new_root = _all_required(old_root), _all_required(new_root)
    for where, why in _unreadable(_all_required(new), _all_required(old), new_root, old_root, "$", ()):
        yield f"{where}: {why}: clients of this release cannot read new answers"


def _all_required(schema: Schema) -> Schema:
    """The schema of what is written if every declared field is."""
    found = dict(schema)
    for word in ("properties", "patternProperties", "$defs"):
        if word in found:
            found[word] = {name: _all_required(part) for name, part in found[word].items()}
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if word in found:
            found[word] = [_all_required(part) for part in found[word]]
    for word in ("items", "additionalProperties"):
        if isinstance(found.get(word), dict):
            found[word] = _all_required(found[word])
    if "properties" in found:
        found["required"] = list(found["properties"])
    return found


def _resolve(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        schema = root["$defs"][name] | {k: v for k, v in schema.items() if k != "$ref"}
    return schema


def _unreadable(
    written: Schema,
    read: Schema,
    written_root: Schema,
    read_root: Schema,
    path: str,
    trail: tuple[tuple[str, str], ...],
) -> list[tuple[str, str]]:
    """Where a message of `written` may not be readable as `read`."""
    pair = (str(written.get("$ref")), str(read.get("$ref")))
    if "$ref" in written and pair in trail:
        return []
    trail = (*trail, pair)
    written, read = _resolve(written, written_root), _resolve(read, read_root)
    if not {k for k in read if k not in _ANNOTATIONS}:
        return []
    options = _options(read)
    problems: list[tuple[str, str]] = []
    for option in _options(written):
        found = [_one(option, _resolve(target, read_root), written_root, read_root, path, trail) for target in options]
        if [] not in found:
            problems += _fewest(found, path)
    return problems


def _fewest(found: list[list[tuple[str, str]]], path: str) -> list[tuple[str, str]]:
    return min(found, key=len, default=[(path, "no alternative accepts it")])


def _options(schema: Schema) -> list[Schema]:
    """A schema as alternatives: anyOf, oneOf, or a list of types. What stands beside them holds for each."""
    for word in ("anyOf", "oneOf"):
        if word in schema:
            beside = {key: value for key, value in schema.items() if key != word and key not in _ANNOTATIONS}
            return [beside | option for option in schema[word]]
    if isinstance(schema.get("type"), list):
        return [schema | {"type": t} for t in schema["type"]]
    return [schema]


def _one(
    written: Schema,
    read: Schema,
    written_root: Schema,
    read_root: Schema,
    path: str,
    trail: tuple[tuple[str, str], ...],
) -> list[tuple[str, str]]:
    written = _resolve(written, written_root)
    if len(_options(written)) > 1 or len(_options(read)) > 1:
        return _unreadable(written, read, written_root, read_root, path, trail)
    problems = _values(written, read, path)
    kind = read.get("type")
    if kind == "object":
        problems += _object(written, read, written_root, read_root, path, trail)
    elif kind == "array":
        problems += _array(written, read, written_root, read_root, path, trail)
    known = {
        "type",
        "const",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "items",
        "prefixItems",
        "pattern",
    }
    for word in set(read) - known - _ANNOTATIONS - set(_LOWER) - set(_UPPER):
        if read[word] != written.get(word):
            problems.append((path, f"{word} changed"))
    return problems


def _values(written: Schema, read: Schema, path: str) -> list[tuple[str, str]]:
    problems = []
    kind, wanted = written.get("type"), read.get("type")
    if wanted is not None and kind != wanted and not (kind == "integer" and wanted == "number"):
        problems.append((path, f"type {kind or 'any'} became {wanted}"))
    allowed = read.get("enum", [read["const"]] if "const" in read else None)
    if allowed is not None:
        possible = written.get("enum", [written["const"]] if "const" in written else None)
        extra = None if possible is None else [value for value in possible if value not in allowed]
        if extra is None or extra:
            problems.append((path, f"values {extra or 'outside the list'} are not in the list"))
    for word in _LOWER:
        if word in read and written.get(word, float("-inf")) < read[word]:
            problems.append((path, f"{word} {written.get(word)} became {read[word]}"))
    for word in _UPPER:
        if word in read and written.get(word, float("inf")) > read[word]:
            problems.append((path, f"{word} {written.get(word)} became {read[word]}"))
    if "pattern" in read and written.get("pattern") != read["pattern"]:
        problems.append((path, "pattern changed"))
    return problems


def _object(
    written: Schema,
    read: Schema,
    written_root: Schema,
    read_root: Schema,
    path: str,
    trail: tuple[tuple[str, str], ...],
) -> list[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    there, wanted = written.get("properties", {}), read.get("properties", {})
    for name in read.get("required", []):
        if name not in written.get("required", []):
            problems.append((f"{path}.{name}", "is required to read but not always written"))
    for name, schema in wanted.items():
        if name in there:
            problems += _unreadable(there[name], schema, written_root, read_root, f"{path}.{name}", trail)
    names, taken = written.get("patternProperties", {}), read.get("patternProperties", {})
    if taken and names.keys() != taken.keys():
        problems.append((path, "patternProperties changed"))
    else:
        for pattern, schema in taken.items():
            problems += _unreadable(names[pattern], schema, written_root, read_root, f"{path}.{pattern}", trail)
    if "propertyNames" in read:
        keys = written.get("propertyNames", {})
        problems += _unreadable(keys, read["propertyNames"], written_root, read_root, f"{path}.(name)", trail)
    open_values = read.get("additionalProperties")
    if isinstance(open_values, dict):
        source = written.get("additionalProperties")
        if isinstance(source, dict):
            problems += _unreadable(source, open_values, written_root, read_root, f"{path}.*", trail)
        elif source is not False:
            problems.append((f"{path}.*", "values of any kind became restricted"))
    elif open_values is False:
        problems += [(f"{path}.{name}", "is written but not accepted") for name in there if name not in wanted]
    return problems


def _array(
    written: Schema,
    read: Schema,
    written_root: Schema,
    read_root: Schema,
    path: str,
    trail: tuple[tuple[str, str], ...],
) -> list[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    if "prefixItems" in read or "prefixItems" in written:
        before, after = written.get("prefixItems", []), read.get("prefixItems", [])
        if len(before) != len(after):
            return [(path, "the tuple's length changed")]
        for number, (left, right) in enumerate(zip(before, after, strict=True)):
            problems += _unreadable(left, right, written_root, read_root, f"{path}[{number}]", trail)
    elif "items" in read:
        problems += _unreadable(written.get("items", {}), read["items"], written_root, read_root, f"{path}[]", trail)
    return problems
