"""Is a new JSON Schema of a payload compatible with the one that was published?

FULL compatibility within a major (the names are the schema registries'): a new reader reads old messages, an old reader
reads new ones. Readers ignore unknown fields, writers write exactly the declared ones. Works on the schemas pydantic makes;
a construct it does not know is incompatible unless it is unchanged.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_ANNOTATIONS = {"x-words", "title", "description", "default", "examples", "$defs", "format"}
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
    """A schema as alternatives: anyOf, oneOf, or a list of types."""
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return list(schema[word])
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
