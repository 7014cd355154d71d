"""Describes what may be published to each stream: which topics, and which data."""

from collections.abc import Mapping
from typing import Any

from client_sdk.contract import STREAM_DATA, SYMBOL_PATTERN, Stream

Schema = dict[str, Any]

_REF = "#/components/schemas/{}"
# Numbers that all clients and the server read alike.
_MIN, _MAX = -(2**63), 2**64 - 1
JSON_VALUE: Schema = {
    "description": "Any JSON without integers of more than 64 bits.",
    "anyOf": [
        {"type": "null"},
        {"type": "boolean"},
        {"type": "string"},
        {"type": "number", "minimum": _MIN, "maximum": _MAX},
        {"type": "array", "items": {"$ref": _REF.format("JsonValue")}},
        {"type": "object", "additionalProperties": {"$ref": _REF.format("JsonValue")}},
    ],
}


def describe_publications(schemas: Mapping[str, Schema]) -> dict[str, Schema]:
    """The schemas of a message to publish, one a stream; `schemas` has the model's own."""
    described = {_name(stream): _publication(stream, schemas) for stream in Stream}
    described["Publication"] = {
        "description": "A message to publish; the data depends on the stream.",
        "oneOf": [{"$ref": _REF.format(name)} for name in described],
    }
    return described


def bound_numbers(schema: Any) -> None:
    """Give integers without bounds those of 64 bits, and free fields those of `JsonValue`."""
    if isinstance(schema, list):
        for each in schema:
            bound_numbers(each)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "integer":
        schema.setdefault("minimum", _MIN)
        schema.setdefault("maximum", _MAX)
    if schema.get("additionalProperties") is True:
        schema["additionalProperties"] = {"$ref": _REF.format("JsonValue")}
    for each in schema.values():
        bound_numbers(each)


def _publication(stream: Stream, schemas: Mapping[str, Schema]) -> Schema:
    model = schemas["Publication"]
    properties = {**model["properties"]}
    data = STREAM_DATA[stream]
    properties["data"] = {"$ref": _REF.format(data.__name__)}
    required = ["topic", "data"]
    if stream.per_symbol:
        symbol = SYMBOL_PATTERN.strip("^$")
        properties["topic"] = {"type": "string", "pattern": f"^{stream.value}:{symbol}$"}
        properties["user"] = {"type": "null", "default": None}
    else:
        properties["topic"] = {"const": stream.value}
        properties["user"] = {**model["properties"]["user"]["anyOf"][0]}
        required.append("user")
    if not stream.is_conflated:
        properties["type"] = {"const": "update", "default": "update"}
    return {
        "description": f"A message to publish to {stream.value}.",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _name(stream: Stream) -> str:
    """`OrderUpdatesPublication` of `ORDER_UPDATES`."""
    return "".join(map(str.capitalize, stream.value.split("_"))) + "Publication"
