"""Writes `schemas/<topic>.json`, one of each record in band, `schemas/declaration.json`, `asyncapi/<service>.yaml` and
`openapi/<service>.json`, or checks them (`--check`).

Generated, committed, never edited. An edit that breaks a published schema within its major is refused: give the fact a
new payload class and a new topic with the next major, the call a new path. What a user may write (`declaration.json`) can
grow, but never refuse what it took: what is published of it in topics is data to its readers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from evenkeel.contracts.compatibility import breaking_calls, breaking_changes, refused_now
from evenkeel.contracts.declaration import declaration_schema
from evenkeel.contracts.envelope import type_of
from evenkeel.contracts.http.catalogue import ROUTES
from evenkeel.contracts.http.openapi import document_of, document_path
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.runtime import IN_BAND
from evenkeel.contracts.topics import SERVICES, TOPICS, Topic, consumed_by, published_by

HERE: Final = Path(__file__).parent
DECLARATION: Final = HERE / "schemas" / "declaration.json"
_HEADERS: Final = {
    "ce_specversion": "1.0",
    "ce_id": "Of the event. It follows from its cause: a repeat has the same.",
    "ce_source": "The producer's store, /evenkeel/<service>/<store>.",
    "ce_type": "io.evenkeel.<topic>.",
    "ce_time": "Event time.",
    "ce_recordedtime": "Wall time of the transaction that said it.",
    "ce_sequence": "20 digits. With source and shard it is the event's place among what its producer said.",
    "ce_shard": "What its producer numbers by itself.",
    "ce_correlationid": "The event from outside, or the command, that the chain began with; without it what it follows from, "
    "and without that the event itself.",
    "ce_causationid": "The event that it follows from, if the payload does not say it.",
    "ce_stream": "Which stream it belongs to; views of a model are <model>@<view version>.",
    "ce_ordertime": "When it takes its turn among the others, if that is not its own time: it came late.",
    "traceparent": "W3C Trace Context, if it is traced.",
    "ce_previous": "Reserved: the sequence of its producer's last event before it on this partition.",
    "ce_signature": "Reserved: the producer's signature.",
    "ce_keyid": "Reserved: the key of the signature.",
    "ce_subject": "Reserved.",
}
"""What a record's headers say, besides content-type."""
_JSON_SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_of(topic: Topic) -> dict[str, Any]:
    """JSON Schema of a topic's payload, as written."""
    return {"$schema": _JSON_SCHEMA, "$id": f"urn:evenkeel:schema:{topic.name}"} | _schema(topic.payload)


def _schema(payload: type[Payload]) -> dict[str, Any]:
    return payload.model_json_schema(mode="serialization")


def schema_in_band(name: str) -> dict[str, Any]:
    """JSON Schema of what travels in band among the events of several topics."""
    return {"$schema": _JSON_SCHEMA, "$id": f"urn:evenkeel:schema:{name}"} | _schema(IN_BAND[name])


def schema_of_declaration() -> dict[str, Any]:
    """JSON Schema of a declaration, as a user writes it. Which words there are is told by the registry."""
    return {"$schema": _JSON_SCHEMA, "$id": "urn:evenkeel:schema:declaration"} | declaration_schema()


def asyncapi_of(title: str, sent: tuple[Topic, ...], received: tuple[Topic, ...]) -> dict[str, Any]:
    """AsyncAPI 3.1 document of a service, or of the whole system."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {"EventHeaders": _headers()}
    for topic in dict.fromkeys((*sent, *received)):
        name = _camel(topic.name)
        channels[name] = {
            "address": topic.name,
            "servers": [{"$ref": "#/servers/kafka"}],
            "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in (name, *_in_band(topic))},
            "bindings": {
                "kafka": {
                    "partitions": topic.partitions,
                    "topicConfiguration": _configuration(topic),
                    "bindingVersion": "0.5.0",
                }
            },
        }
        messages[name] = _message(topic, name)
        carried: dict[str, type[Payload]] = {name: topic.payload}
        for one, in_band in _in_band(topic).items():
            carried[one] = IN_BAND[in_band]
            messages[one] = _message_in_band(in_band, one)
        for one, payload in carried.items():
            definition = payload.model_json_schema(
                mode="serialization", ref_template=f"#/components/schemas/{one}_{{model}}"
            )
            schemas |= {f"{one}_{key}": value for key, value in definition.pop("$defs", {}).items()}
            schemas[one] = definition
    for action, topics in (("send", sent), ("receive", received)):
        for topic in topics:
            name = _camel(topic.name)
            operations[f"{action}{name[0].upper()}{name[1:]}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{one}"} for one in (name, *_in_band(topic))],
            }
    return {
        "asyncapi": "3.1.0",
        "id": f"urn:evenkeel:{title.lower().replace(' ', '-')}",
        "info": {"title": f"Evenkeel {title}", "version": "1.0.0", "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{broker}",
                "protocol": "kafka",
                "description": "The broker that all services share (EVENKEEL_BROKER).",
                "variables": {"broker": {"default": "127.0.0.1:9092"}},
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _camel(topic: str) -> str:
    first, *rest = topic.replace(".", "-").split("-")
    return first + "".join(part.capitalize() for part in rest)


def _configuration(topic: Topic) -> dict[str, Any]:
    return {"cleanup.policy": ["compact" if topic.compacted else "delete"], "retention.ms": topic.retention_ms}


def _in_band(topic: Topic) -> dict[str, str]:
    """Message → name of what travels in band on a topic."""
    return {_camel(name): name for name, payload in IN_BAND.items() if payload in topic.also}


def _message(topic: Topic, name: str) -> dict[str, Any]:
    return {
        **_described(topic.payload, topic.name, name),
        "x-evenkeel": {
            "plane": topic.plane.value,
            "producer": topic.producer,
            "consumers": list(topic.consumers),
            "personal-data": topic.personal,
        },
    }


def _message_in_band(in_band: str, name: str) -> dict[str, Any]:
    return {**_described(IN_BAND[in_band], in_band, name), "x-evenkeel": {"in-band": True}}


def _described(payload: type[Payload], type_name: str, name: str) -> dict[str, Any]:
    return {
        "name": payload.__name__,
        "title": payload.__name__,
        "summary": payload.__doc__.strip().splitlines()[0] if payload.__doc__ else type_name,
        "contentType": "application/json",
        "correlationId": {"location": "$message.header#/ce_correlationid"},
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/EventHeaders"},
                {"properties": {"ce_type": {"const": type_of(type_name).decode()}}},
            ]
        },
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": "0.5.0"}},
    }


def _headers() -> dict[str, Any]:
    """CloudEvents 1.0 in Kafka's binary mode (contracts/envelope.py)."""
    properties: dict[str, Any] = {name: {"type": "string", "description": said} for name, said in _HEADERS.items()}
    properties["ce_specversion"] = {"const": "1.0"}
    for name in ("ce_time", "ce_recordedtime", "ce_ordertime"):
        properties[name]["format"] = "date-time"
    required = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"]
    return {"type": "object", "required": required, "properties": properties}


def documents() -> dict[Path, str]:
    """Every generated file with its content."""
    files = {_schema_path(topic.name): _json(schema_of(topic)) for topic in TOPICS}
    files |= {_schema_path(name): _json(schema_in_band(name)) for name in IN_BAND}
    files[DECLARATION] = _json(schema_of_declaration())
    for service in SERVICES:
        files[HERE / "asyncapi" / f"{service}.yaml"] = _yaml(
            asyncapi_of(service, published_by(service), consumed_by(service))
        )
    files[HERE / "asyncapi" / "evenkeel.yaml"] = _yaml(asyncapi_of("all services", TOPICS, ()))
    for service, routes in ROUTES.items():
        files[document_path(service)] = _json(document_of(service, routes))
    return files


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def refused(topic: Topic) -> list[str]:
    """Why a topic's schema may not replace the committed one."""
    return _broken(topic.name, schema_of(topic))


def _broken(name: str, schema: dict[str, Any]) -> list[str]:
    path = _schema_path(name)
    return breaking_changes(json.loads(path.read_text()), schema) if path.exists() else []


def _schema_path(name: str) -> Path:
    return HERE / "schemas" / f"{name}.json"


def refused_calls(service: str) -> list[str]:
    """Why a service's OpenAPI document may not replace the committed one."""
    path = document_path(service)
    return breaking_calls(json.loads(path.read_text()), document_of(service, ROUTES[service])) if path.exists() else []


def refused_of_declaration() -> list[str]:
    """What could be declared by the committed schema, and could no longer."""
    return refused_now(json.loads(DECLARATION.read_text()), schema_of_declaration()) if DECLARATION.exists() else []


def breaking() -> list[str]:
    """Everything in which the contracts as they are break the committed ones."""
    problems = [f"{topic.name}: {problem}" for topic in TOPICS for problem in refused(topic)]
    problems += [f"{name}: {problem}" for name in IN_BAND for problem in _broken(name, schema_in_band(name))]
    problems += [f"{service}: {problem}" for service in SERVICES for problem in refused_calls(service)]
    return problems + [f"declaration: {problem}" for problem in refused_of_declaration()]


def main() -> None:
    if problems := breaking():
        sys.exit("a published contract would break; give it a new major instead:\n  " + "\n  ".join(problems))
    files = documents()
    stale = {path: text for path, text in files.items() if not path.exists() or path.read_text() != text}
    surplus = [
        path for folder in ("schemas", "asyncapi", "openapi") for path in (HERE / folder).glob("*") if path not in files
    ]
    if "--check" in sys.argv:
        if stale or surplus:
            names = ", ".join(str(path.relative_to(HERE)) for path in (*stale, *surplus))
            sys.exit(f"generated contracts are out of date: {names}: run `make contracts`")
        return
    for path, text in stale.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(HERE)}")
    for path in surplus:
        path.unlink()
        print(f"removed {path.relative_to(HERE)}")


if __name__ == "__main__":
    main()
