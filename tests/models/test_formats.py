"""The contract for other languages: TypeScript, JSON Schema and AsyncAPI."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from client_sdk.contract.formats import asyncapi, json_schema, typescript
from server.cli import main

COMMITTED = Path(__file__).parent.parent.parent / "client_js" / "src" / "contract.ts"


def test_committed_types_are_those_of_the_models() -> None:
    expected = "regenerate it: floorcast contract --format typescript >client_js/src/contract.ts"
    assert COMMITTED.read_text() == typescript(), expected


@pytest.mark.parametrize("name", ["asyncapi", "jsonschema", "typescript"])
def test_command_prints_the_contract(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "--format", name], {}) == 0
    printed = capsys.readouterr().out
    if name == "typescript":
        assert printed == typescript()
    else:
        assert "SubscribeReply" in printed
        json.loads(printed)


def test_json_schema_is_valid() -> None:
    Draft202012Validator.check_schema(json_schema("1"))


def test_asyncapi_refers_only_to_what_it_has() -> None:
    document = asyncapi("1")
    found = 0
    for reference in references(document):
        target: Any = document
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]
        found += 1
    assert found > 100


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for each in node for found in references(each)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if "$ref" in node else []
    return own + [found for each in node.values() for found in references(each)]
