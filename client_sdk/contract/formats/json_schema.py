"""The models as JSON Schema, as the wire has them: a reader's defaults are not the sender's."""

import copy
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from client_sdk.contract.annotations import LeftOut, Outcome, SentAsNull
from client_sdk.contract.events import EVENTS
from client_sdk.contract.messages import MESSAGE_MODELS, Body
from client_sdk.contract.replies import ConnectError
from client_sdk.contract.requests import ConnectAuth, Publication

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF_PREFIX = "#/$defs/"
# The one union of models, which pydantic would repeat where it is used.
_ANY_MESSAGE = "AnyMessage"


def models() -> tuple[type[BaseModel], ...]:
    """All payloads and replies, each once."""
    found: dict[type[BaseModel], None] = dict.fromkeys((ConnectAuth, ConnectError, Publication))
    for namespace in EVENTS:
        for sent in namespace.from_client:
            found.update({sent.payload: None, sent.reply: None})
        for received in namespace.to_client:
            found.update(dict.fromkeys(received.payloads))
    return tuple(found)


def definitions(ref_prefix: str = _REF_PREFIX) -> dict[str, Schema]:
    """The schemas of all models by name; `ref_prefix` is where the document has them."""
    _, document = models_json_schema(
        [(model, "validation") for model in models()],
        schema_generator=_WireSchema,
        ref_template=_REF_PREFIX + "{model}",
    )
    schemas: dict[str, Schema] = document["$defs"]
    names = {key: schema.get("title", key) for key, schema in schemas.items()}
    assert len(set(names.values())) == len(names), "two models have one name"
    renamed = {names[key]: _members(schema, names, ref_prefix) for key, schema in schemas.items()}
    renamed[_ANY_MESSAGE] = {
        "description": "A message of any stream.",
        "anyOf": [{"$ref": ref_prefix + each.__name__} for each in MESSAGE_MODELS.values()],
    }
    return dict(sorted(renamed.items()))


def json_schema(version: str) -> Schema:
    """One JSON Schema document with all models under `$defs`."""
    return {
        "$schema": DIALECT,
        "title": "Floorcast",
        "description": f"The events and replies of Floorcast {version}; see docs/protocol.md.",
        "$defs": definitions(),
    }


class _WireSchema(GenerateJsonSchema):
    """Describes what a server sends: what it always sends is required, without a default."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        described: Schema = super().model_schema(schema)
        model = schema["cls"]
        if not issubclass(model, Body):
            return described
        required = []
        for name, field in model.model_fields.items():
            shown = described["properties"][name]
            shown.pop("default", None)
            is_optional = field.get_default(call_default_factory=True) is None or any(
                isinstance(each, LeftOut) for each in field.metadata
            )
            if is_optional and not any(isinstance(each, SentAsNull) for each in field.metadata):
                described["properties"][name] = _without_null(shown)
            else:
                required.append(name)
        described["required"] = required
        return described if model.outcome is None else _by_outcome(described, model.outcome)


def _without_null(schema: Schema) -> Schema:
    others = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(others) != 1:
        return {**schema, "anyOf": others} if others else schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest, **others[0]}


def _by_outcome(schema: Schema, outcome: Outcome) -> Schema:
    """Split a reply in two: accepted with all its fields, or refused with an error."""
    accepted, refused = copy.deepcopy(schema), copy.deepcopy(schema)
    for each, value in ((accepted, outcome.accepted), (refused, outcome.refused)):
        kind = "boolean" if isinstance(value, bool) else "string"
        each["properties"][outcome.field] = {"const": value, "type": kind}
        del each["title"]
        each.pop("description", None)
    del accepted["properties"]["error"]
    left = (outcome.field, "error", *outcome.kept)
    refused["properties"] = {name: refused["properties"][name] for name in left}
    refused["required"] = [outcome.field, "error"]
    described: Schema = {key: schema[key] for key in ("title", "description") if key in schema}
    return {**described, "anyOf": [accepted, refused]}


def _finish(node: Any, names: dict[str, str], ref_prefix: str) -> Any:
    """Drop titles of fields, which only repeat their names, and refer to models by their names."""
    if isinstance(node, list):
        return [_finish(each, names, ref_prefix) for each in node]
    if not isinstance(node, dict):
        return node
    if "discriminator" in node:
        return {"$ref": ref_prefix + _ANY_MESSAGE}
    if node.get("title") in names.values() and "properties" in node:
        return {"$ref": ref_prefix + node["title"]}
    if "$ref" in node:
        name = names[node["$ref"].removeprefix(_REF_PREFIX)]
        return {**node, "$ref": ref_prefix + name}
    return _members(node, names, ref_prefix)


def _members(node: Schema, names: dict[str, str], ref_prefix: str) -> Schema:
    finished = {}
    for key, value in node.items():
        if key == "properties":
            finished[key] = {name: _field(each, names, ref_prefix) for name, each in value.items()}
        else:
            finished[key] = _finish(value, names, ref_prefix)
    return finished


def _field(schema: Schema, names: dict[str, str], ref_prefix: str) -> Schema:
    untitled = {key: value for key, value in schema.items() if key != "title"}
    finished: Schema = _finish(untitled, names, ref_prefix)
    return finished
