"""Validates with pydantic's models, and translates their errors into request errors."""

from collections.abc import Callable
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import CoreSchema, SchemaValidator
from pydantic_core.core_schema import typed_dict_field, typed_dict_schema

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError

_MAX_PROBLEMS = 8
_MAX_WHERE = 200


def invalid_request(error: ValidationError, prefix: str = "") -> RequestError:
    """The error with the first problem as message and up to eight as details, without the data."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    problems = [
        {
            "where": ".".join(map(str, each["loc"]))[:_MAX_WHERE],
            "problem": each["msg"].removeprefix("Value error, "),
        }
        for each in found[:_MAX_PROBLEMS]
    ]
    first = problems[0]
    where = f"{first['where']}: " if first["where"] else ""
    return RequestError(
        ErrorCode.REQUEST_INVALID,
        f"{prefix}{where}{first['problem']}",
        details={"problems": problems},
    )


def fields_validator(model: type[BaseModel]) -> Callable[[object], dict[str, Any]]:
    """A validator that accepts what a model accepts, and returns the fields as a dict.

    It builds no instances, so it takes half the time. Raises the model's `ValidationError`.
    """
    validate = SchemaValidator(_without_instances(model.__pydantic_core_schema__)).validate_python
    explain = model.__pydantic_validator__.validate_python

    def validator(value: object) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = validate(value)
        except ValidationError:
            # Its errors call the value by the model's name.
            fields = dict(explain(value))
        return fields

    return validator


def _without_instances(schema: Any) -> CoreSchema:
    """A schema in which each model, also an inner one, is a typed dict of its fields."""
    if not isinstance(schema, dict):
        return cast(CoreSchema, schema)
    if schema.get("type") != "model":
        return cast(CoreSchema, {key: _without_instances(each) for key, each in schema.items()})
    fields = schema["schema"]["fields"]
    return typed_dict_schema(
        {
            name: typed_dict_field(
                _without_instances(field["schema"]), required=field["schema"]["type"] != "default"
            )
            for name, field in fields.items()
        },
        config=schema["config"],
    )
