"""The contract as an AsyncAPI 3 document, from the server's side: it receives what clients send."""

from typing import Any

from client_sdk.contract.events import EVENTS, ClientEvent, NamespaceEvents, ServerEvent
from client_sdk.contract.formats.json_schema import Schema, definitions

_SCHEMAS = "#/components/schemas/"


def asyncapi(version: str) -> Schema:
    """The document; both namespaces are channels of one Socket.IO connection."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Floorcast",
            "version": version,
            "description": (
                "Realtime market data and shared sessions over Socket.IO 5 at `/socket.io/`. A "
                "channel is a namespace, a message is an event with one argument, and a reply is "
                "its acknowledgement."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {_name(each): _channel(each) for each in EVENTS},
        "operations": {
            name: operation
            for each in EVENTS
            for name, operation in (_received(each) | _sent(each)).items()
        },
        "components": {
            "schemas": {name: _draft_7(each) for name, each in definitions(_SCHEMAS).items()}
        },
    }


def _name(events: NamespaceEvents) -> str:
    return events.namespace.removeprefix("/")


def _channel(events: NamespaceEvents) -> Schema:
    messages: Schema = {}
    for sent in events.from_client:
        messages[_request_id(sent)] = _message(sent.name, sent.payload)
        messages[_reply_id(sent)] = _message(f"{sent.name} (acknowledgement)", sent.reply)
    for received in events.to_client:
        messages[received.name] = _message(received.name, *received.payloads)
    return {
        "address": events.namespace,
        "description": f"The Socket.IO namespace {events.namespace}.",
        "messages": messages,
    }


def _request_id(event: ClientEvent) -> str:
    # The server sends an event named `signal` too.
    return f"{event.name}.request"


def _reply_id(event: ClientEvent) -> str:
    return f"{event.name}.reply"


def _message(name: str, *models: type) -> Schema:
    payloads: list[Schema] = [{"$ref": f"{_SCHEMAS}{model.__name__}"} for model in models]
    return {"name": name, "payload": payloads[0] if len(payloads) == 1 else {"anyOf": payloads}}


def _received(events: NamespaceEvents) -> Schema:
    channel = {"$ref": f"#/channels/{_name(events)}"}
    return {
        f"{_name(events)}.receive.{event.name}": {
            "action": "receive",
            "channel": channel,
            "summary": event.payload.__doc__,
            "messages": [_reference(events, _request_id(event))],
            "reply": {"channel": channel, "messages": [_reference(events, _reply_id(event))]},
        }
        for event in events.from_client
    }


def _sent(events: NamespaceEvents) -> Schema:
    return {
        f"{_name(events)}.send.{event.name}": _sent_operation(events, event)
        for event in events.to_client
    }


def _sent_operation(events: NamespaceEvents, event: ServerEvent) -> Schema:
    operation: Schema = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{_name(events)}"},
        "summary": event.payloads[0].__doc__,
        "messages": [_reference(events, event.name)],
    }
    if event.acknowledged:
        operation["description"] = "May ask for an acknowledgement without a payload."
    return operation


def _reference(events: NamespaceEvents, message_id: str) -> Schema:
    return {"$ref": f"#/channels/{_name(events)}/messages/{message_id}"}


def _draft_7(node: Any) -> Any:
    """The older draft that AsyncAPI takes: the items of a tuple have another keyword there."""
    if isinstance(node, list):
        return [_draft_7(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {"items" if key == "prefixItems" else key: _draft_7(each) for key, each in node.items()}
