"""The AsyncAPI document is valid by the schema that the AsyncAPI project publishes."""

import json
from pathlib import Path

from jsonschema import Draft7Validator

from client_sdk.contract.formats import asyncapi

SCHEMAS = Path(__file__).parent.parent.parent / "client_js/node_modules/@asyncapi/specs/schemas"


def test_asyncapi_document_is_valid() -> None:
    schema = json.loads((SCHEMAS / "3.0.0.json").read_text())
    # Any other `$schema` would be fetched from its host.
    problems = [
        f"{'/'.join(map(str, each.absolute_path))}: {each.message[:200]}"
        for each in Draft7Validator(schema).iter_errors(asyncapi("1"))
    ]
    assert problems == []
