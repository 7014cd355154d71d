"""The contract as TypeScript: an interface for each model, and the events of each namespace."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from client_sdk.contract.events import EVENTS, ClientEvent, NamespaceEvents, ServerEvent
from client_sdk.contract.formats.json_schema import Schema, definitions

_LINE_CHARACTERS = 100
_HEAD = """\
// The wire contract of Floorcast, generated from the models of the server by
//     floorcast contract --format typescript
// Use it with the stock client:
//     const market: Socket<ServerToClientEvents["/market"], ClientToServerEvents["/market"]> =
//       io(url + "/market", { auth: { token } });
"""
_KEYWORDS = {
    "boolean": "boolean",
    "integer": "number",
    "null": "null",
    "number": "number",
    "string": "string",
}


def typescript() -> str:
    """The text of one module; it imports nothing."""
    parts = [_HEAD]
    parts += [_declaration(name, schema) for name, schema in definitions().items()]
    parts.append(_tables("ServerToClientEvents", "What the server sends", _received))
    parts.append(_tables("ClientToServerEvents", "What a client sends", _sent))
    return "\n".join(parts)


# --- models


def _declaration(name: str, schema: Schema) -> str:
    text = _comment(schema.get("description"), "")
    if schema.get("type") == "object" and "properties" in schema:
        return f"{text}export interface {name} {_object(schema, '')}\n"
    alternatives = _alternatives(schema, "")
    line = f"export type {name} = {' | '.join(alternatives)};"
    if len(line) <= _LINE_CHARACTERS and "\n" not in line:
        return f"{text}{line}\n"
    if all(each.startswith("{") for each in alternatives):
        return f"{text}export type {name} =\n  | {_indented(alternatives)};\n"
    return f"{text}export type {name} =\n  | " + "\n  | ".join(alternatives) + ";\n"


def _indented(alternatives: Iterable[str]) -> str:
    return "\n  | ".join(each.replace("\n", "\n    ") for each in alternatives)


def _comment(text: str | None, indent: str) -> str:
    if text is None:
        return ""
    lines = text.split("\n")
    if len(lines) == 1:
        return f"{indent}/** {text} */\n"
    body = "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines)
    return f"{indent}/**\n{body}{indent} */\n"


def _object(schema: Schema, indent: str) -> str:
    inner = indent + "  "
    required = schema.get("required", ())
    lines = []
    for name, field in schema["properties"].items():
        mark = "" if name in required else "?"
        lines.append(f"{inner}{name}{mark}: {_type(field, inner)};")
    if schema.get("additionalProperties") is True:
        lines.append(f"{inner}[field: string]: unknown;")
    if not lines:
        return "{\n" + f"{inner}[field: string]: never;\n{indent}" + "}"
    return "{\n" + "\n".join(lines) + f"\n{indent}}}"


def _type(schema: Schema, indent: str) -> str:
    return " | ".join(_alternatives(schema, indent))


def _alternatives(schema: Schema, indent: str) -> Sequence[str]:
    """The types of which a value has one."""
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema or "oneOf" in schema:
        parts = schema.get("anyOf") or schema["oneOf"]
        types = [each for part in parts for each in _alternatives(part, indent)]
        if "string" in types and any("$ref" in part for part in parts):
            # Keeps the names of an enumeration for completion.
            types = [each.replace("string", "(string & {})") for each in types]
        return list(dict.fromkeys(types))
    if "const" in schema:
        return [json.dumps(schema["const"])]
    if "enum" in schema:
        return [json.dumps(each) for each in schema["enum"]]
    return [_plain_type(schema, indent)]


def _plain_type(schema: Schema, indent: str) -> str:
    kind = schema.get("type")
    if kind == "array":
        return _array(schema, indent)
    if kind == "object":
        if "properties" in schema:
            return _object(schema, indent)
        values: Any = schema.get("additionalProperties", True)
        shown = "unknown" if values is True else _type(values, indent)
        return f"Record<string, {shown}>"
    return _KEYWORDS.get(kind or "", "unknown")


def _array(schema: Schema, indent: str) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(_type(each, indent) for each in schema['prefixItems'])}]"
    item = _type(schema.get("items", {}), indent)
    return f"({item})[]" if " " in item and not item.startswith("[") else f"{item}[]"


# --- events


def _tables(name: str, what: str, lines: Callable[[NamespaceEvents], Iterable[str]]) -> str:
    parts = [f"/** {what}, by namespace. */\nexport interface {name} {{\n"]
    for events in EVENTS:
        parts.append(f'  "{events.namespace}": {{\n')
        parts += lines(events)
        parts.append("  };\n")
    return "".join([*parts, "}\n"])


def _received(events: NamespaceEvents) -> Iterable[str]:
    return map(_server_event, events.to_client)


def _sent(events: NamespaceEvents) -> Iterable[str]:
    return map(_client_event, events.from_client)


def _server_event(event: ServerEvent) -> str:
    payload = " | ".join(model.__name__ for model in event.payloads)
    # With recovery the offset follows the payload, except where an acknowledgement is asked for.
    last = "acknowledge?: (() => void) | string" if event.acknowledged else "offset?: string"
    return _event(event.name, f"payload: {payload}", last)


def _client_event(event: ClientEvent) -> str:
    acknowledge = f"acknowledge: (reply: {event.reply.__name__}) => void"
    return _event(event.name, f"payload: {event.payload.__name__}", acknowledge)


def _event(name: str, *parameters: str) -> str:
    line = f"    {name}: ({', '.join(parameters)}) => void;"
    if len(line) <= _LINE_CHARACTERS:
        return f"{line}\n"
    broken = "".join(f"      {each},\n" for each in parameters)
    return f"    {name}: (\n{broken}    ) => void;\n"
