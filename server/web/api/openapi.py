"""Describes the API as OpenAPI 3.1, from the models that it validates with."""

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from client_sdk import __version__
from client_sdk.contract import STREAM_DATA, AnyMessage, Publication, SessionMessage
from server.web.api.endpoints import AnyEndpoint
from server.web.api.errors import ErrorAnswer
from server.web.api.publications import JSON_VALUE, bound_numbers, describe_publications

Schema = dict[str, Any]

_REF = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Publish, read topics, and operate the server. Answers and errors are JSON; the token's org "
    "bounds every call. See docs/http-api.md."
)
_HEADERS = {
    "X-Request-Id": {
        "description": "the id of the request in the server's log: yours, if you send one",
        "schema": {"type": "string"},
    }
}
_REQUEST_ID: Schema = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "your own id of the request: 1 to 64 of `A-Z a-z 0-9 . _ : -`",
    # Anything else is replaced, not refused.
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "makes a retry safe, as `id` does for a message",
    "schema": {"type": "string", "pattern": "^[!-~]{1,100}$"},
}


def describe_api(endpoints: Iterable[AnyEndpoint], prefix: str) -> Schema:
    """The OpenAPI document of these endpoints, served under a prefix."""
    endpoints = tuple(endpoints)
    schemas = _schemas(endpoints)
    paths: dict[str, Schema] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, schemas)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    for endpoint in endpoints:
        if not endpoint.has_body:
            # Its fields are parameters.
            schemas.pop(endpoint.request.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Floorcast", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": prefix}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def _schemas(endpoints: Iterable[AnyEndpoint]) -> dict[str, Schema]:
    messages: tuple[type[BaseModel], ...] = get_args(AnyMessage)
    read: list[type[BaseModel]] = [
        *dict.fromkeys(each.request for each in endpoints),
        Publication,
        *STREAM_DATA.values(),
    ]
    written: list[type[BaseModel]] = [
        *dict.fromkeys(each.answer for each in endpoints),
        ErrorAnswer,
        *messages,
        SessionMessage,
    ]
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(each, "validation") for each in read]
    models += [(each, "serialization") for each in written]
    _, document = models_json_schema(models, ref_template=_REF)
    schemas: dict[str, Schema] = document["$defs"]
    for each in schemas.values():
        bound_numbers(each)
    schemas |= {**describe_publications(schemas), "JsonValue": JSON_VALUE}
    names = [each.__name__ for each in messages]
    schemas["MarketMessage"] = {
        "description": "One message of a topic, as subscribers get it.",
        "oneOf": [{"$ref": _REF.format(model=name)} for name in names],
    }
    for schema in schemas.values():
        _drop_titles(schema)
    return dict(sorted(schemas.items()))


def _drop_titles(schema: Schema) -> None:
    """Drop the titles that only repeat names."""
    schema.pop("title", None)
    for each in schema.get("properties", {}).values():
        each.pop("title", None)


def _operation(endpoint: AnyEndpoint, schemas: dict[str, Schema]) -> Schema:
    request = schemas[endpoint.request.__name__]
    properties, required = request.get("properties", {}), request.get("required", [])
    parameters: list[Schema] = []
    for name, schema in properties.items():
        if name in endpoint.path_fields:
            parameters.append(_parameter("path", name, schema, is_required=True))
        elif not endpoint.has_body:
            parameters.append(_parameter("query", name, schema, is_required=name in required))
    operation: Schema = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "description": f"{request.get('description', '')}\n\nNeeds the scope "
        f"`{endpoint.scope.value}`.",
        "tags": [endpoint.path.split("/")[1]],
        "parameters": [*parameters, _REQUEST_ID],
    }
    if endpoint.method == "POST":
        operation["parameters"].append(_IDEMPOTENCY_KEY)
    if endpoint.has_body:
        operation["requestBody"] = _body(endpoint, request)
    operation["responses"] = {
        "200": _response(endpoint.answer.__name__, "The answer."),
        "default": _response(ErrorAnswer.__name__, "An error; its code says which."),
    }
    return operation


def _parameter(kind: str, name: str, schema: Schema, *, is_required: bool) -> Schema:
    # A parameter that is optional is left out, not null.
    options = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    rest = {key: each for key, each in schema.items() if key not in ("anyOf", "default")}
    if schema.get("default") is not None:
        rest["default"] = schema["default"]
    described = {**(options[0] if options else {}), **rest}
    parameter: Schema = {"name": name, "in": kind, "required": is_required}
    if "description" in described:
        parameter["description"] = described.pop("description")
    return {**parameter, "schema": described}


def _body(endpoint: AnyEndpoint, request: Schema) -> Schema:
    """The body of a request, whose model also has the fields of the path."""
    for name in endpoint.path_fields:
        request.get("properties", {}).pop(name, None)
        if name in request.get("required", ()):
            request["required"].remove(name)
    is_required = bool(request.get("required") or "oneOf" in request)
    if not is_required:
        request.pop("required", None)
    reference = {"$ref": _REF.format(model=endpoint.request.__name__)}
    return {"required": is_required, "content": {"application/json": {"schema": reference}}}


def _response(model: str, description: str) -> Schema:
    reference = {"$ref": _REF.format(model=model)}
    return {
        "description": description,
        "headers": _HEADERS,
        "content": {"application/json": {"schema": reference}},
    }


def _operation_id(endpoint: AnyEndpoint) -> str:
    """`GET /topics/{topic}/history` as `getTopicsTopicHistory`."""
    words = endpoint.path.replace("{", "").replace("}", "").replace("_", "/").split("/")
    return endpoint.method.lower() + "".join(map(str.capitalize, words))
