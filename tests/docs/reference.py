"""Writes docs/reference.md from the models of the contract and of the HTTP API."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from client_sdk.contract import ErrorCode
from client_sdk.contract.events import EVENTS, NamespaceEvents
from client_sdk.contract.formats.json_schema import definitions
from tests.docs.snippets import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference.md"
Schema = dict[str, Any]

_HEAD = """\
# Reference

Every event, call, model and error code, generated from the server's models by
`python -m tests.docs.reference`. [protocol.md](protocol.md) and [http-api.md](http-api.md) say what
they mean and how they belong together. The same as files: `floorcast contract --format jsonschema`,
`typescript` or `asyncapi`, and [openapi.json](openapi.json).
"""
_REF = "#/$defs/"
_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}


def reference() -> str:
    """The text of the page."""
    parts = [_HEAD]
    parts += [_events(each) for each in EVENTS]
    parts.append(_calls(json.loads((REPOSITORY / "docs" / "openapi.json").read_text("utf-8"))))
    parts.append(f"## Error codes\n\n{', '.join(f'`{each.value}`' for each in ErrorCode)}\n")
    parts.append("## Models\n")
    parts += [_model(name, schema) for name, schema in definitions().items()]
    return "\n".join(parts)


def _events(events: NamespaceEvents) -> str:
    sent = [
        (f"`{each.name}`", _link(each.payload.__name__), _link(each.reply.__name__))
        for each in events.from_client
    ]
    received = [
        (f"`{each.name}`", " or ".join(_link(model.__name__) for model in each.payloads))
        for each in events.to_client
    ]
    return (
        f"## {events.namespace}\n\n"
        f"{_table(('from the client', 'payload', 'reply'), sent)}\n"
        f"{_table(('to the client', 'payload'), received)}"
    )


def _calls(document: Schema) -> str:
    rows = []
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            scope = call["description"].rpartition("Needs the scope ")[2].rstrip(".")
            needs = scope if scope.startswith("`") else ""
            rows.append((f"`{method.upper()} {path}`", call["summary"], needs))
    return f"## HTTP, under `/api/v1`\n\n{_table(('call', 'what it does', 'scope'), sorted(rows))}"


def _model(name: str, schema: Schema) -> str:
    text = " ".join(schema.get("description", "").split())
    parts = [f"### {name}\n"]
    parts += [f"{text}\n"] if text else []
    alternatives = [each for each in schema.get("anyOf", ()) if "properties" in each]
    for fields in alternatives or ([schema] if "properties" in schema else []):
        required = fields.get("required", ())
        rows = [
            (f"`{field}`" + ("" if field in required else "?"), _kind(each), _bounds(each))
            for field, each in fields["properties"].items()
        ]
        parts.append(_table(("field", "type", ""), rows) if rows else "No fields.\n")
    if not alternatives and "properties" not in schema:
        parts.append(f"{_kind(schema)}\n")
    return "\n".join(parts)


def _kind(schema: Schema) -> str:
    """The type of a field, with links to models."""
    if "$ref" in schema:
        return _link(schema["$ref"].removeprefix(_REF))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "prefixItems" in schema:
        return f"[{', '.join(_kind(each) for each in schema['prefixItems'])}]"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    values = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(values, dict):
        return f"object of {_kind(values)}"
    return str(schema.get("type", "any"))


def _bounds(schema: Schema) -> str:
    """What the schema says about a field besides its type."""
    found = [text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema]
    if "default" in schema:
        found.append(f"default `{json.dumps(schema['default'])}`")
    if "description" in schema:
        found.append(" ".join(schema["description"].split()))
    return "; ".join(found)


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = "|" + "---|" * len(head)
    lines = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (head, *rows)]
    first, *others = (f"| {line} |" for line in lines)
    return "\n".join((first, rule, *others)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
