"""Renders the API's documentation as one page, without scripts and without other hosts."""

import base64
import hashlib
import re
from html import escape
from typing import Any

Schema = dict[str, Any]

_CODE = re.compile(r"`([^`]+)`")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1d2530; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .3rem; }
h3 { font: 600 .95rem ui-monospace, monospace; margin: 1.8rem 0 .3rem; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; background: #f2f5f8; border-radius: 4px; }
code { padding: 0 .25em; } pre { padding: .7rem .9rem; white-space: pre-wrap; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid #dde3ea; }
.method { display: inline-block; min-width: 4em; color: #0b5cad; }
@media (prefers-color-scheme: dark) { body { color: #d9e0e8; background: #14181d; }
  code, pre { background: #1f262e; } th, td { border-color: #333c46; }
  .method { color: #6db3ff; } a { color: #6db3ff; } }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# The page has nothing but text and this style.
DOCS_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def render_docs(document: Schema) -> str:
    """The page of an OpenAPI document."""
    schemas = document["components"]["schemas"]
    prefix = document["servers"][0]["url"]
    operations = [
        _operation(method.upper(), path, operation, prefix)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    info = document["info"]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{escape(info['title'])}: HTTP API</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])}: HTTP API</h1><p>{_text(info['description'])}</p>"
        f"<p>The same for programs: <a href={escape(prefix)}/openapi.json>openapi.json</a>; the "
        f"events of the sockets: <a href={escape(prefix)}/asyncapi.json>asyncapi.json</a>.</p>"
        + "".join(operations)
        + "<h2>Models</h2>"
        + "".join(_model(name, schema) for name, schema in schemas.items())
    )


def _operation(method: str, path: str, operation: Schema, prefix: str) -> str:
    rows = "".join(
        _row(each["name"], each["in"], each["schema"], each.get("description", ""))
        for each in operation["parameters"]
    )
    body = operation.get("requestBody")
    model = None if body is None else _name(body["content"]["application/json"]["schema"])
    answer = _name(operation["responses"]["200"]["content"]["application/json"]["schema"])
    curl = f'curl -H "Authorization: Bearer $TOKEN" "$URL{prefix}{path}"'
    if method != "GET":
        curl += f" -X {method}"
    if model is not None:
        curl += " -H 'Content-Type: application/json' -d @body.json"
    text = _text(operation["description"])
    return (
        f"<h3 id={operation['operationId']}><span class=method>{method}</span> {escape(path)}</h3>"
        f"<p><b>{escape(operation['summary'])}.</b> {text}</p><pre>{escape(curl)}</pre>"
        f"<table>{rows}</table><p>"
        + ("" if model is None else f"Body: {_link(model)}. ")
        + f"Answer: {_link(answer)}.</p>"
    )


def _model(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = "".join(
        _row(
            field,
            "required" if field in required else "",
            each,
            each.get("description", ""),
        )
        for field, each in schema.get("properties", {}).items()
    )
    options = "".join(f"<li>{_type(each)}" for each in schema.get("oneOf", ()))
    return (
        f"<h3 id={escape(name)}>{escape(name)}</h3><p>{_text(schema.get('description', ''))}</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + (f"<ul>{options}</ul>" if options else "")
    )


def _row(name: str, note: str, schema: Schema, description: str) -> str:
    default = schema.get("default")
    if default not in (None, [], {}):
        description = f"{description} (default {default})"
    return (
        f"<tr><td><code>{escape(name)}</code><td>{escape(note)}<td>{_type(schema)}"
        f"<td>{_text(description.strip())}"
    )


def _type(schema: Schema) -> str:
    """The type of a field, as HTML."""
    if "$ref" in schema:
        return _link(_name(schema))
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(_type(each) for each in options if each.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("const") or schema.get("type", "any")))


def _text(text: str) -> str:
    """Text with code in backticks and blank lines, as HTML."""
    marked = _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
    return marked.replace("\n\n", "<br>")


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _link(name: str) -> str:
    return f"<a href=#{escape(name)}>{escape(name)}</a>"
