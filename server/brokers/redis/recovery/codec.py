"""Encodes messages of the handover, and decodes them without trusting their source."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from server.core.recovery.connection_state import ConnectionState, ResumeRequest

T = TypeVar("T")

# 200 topics take about 20 KB.
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A request for a parked connection; the reply repeats the number in `ask`."""

    v: Literal[1]
    ask: int
    node: str
    reclaim: ResumeRequest


@dataclass(frozen=True, slots=True)
class FetchReply:
    """The reply: the connection's state, or None if the node does not hold it."""

    v: Literal[1]
    answer: int
    luggage: ConnectionState | None


@dataclass(frozen=True, slots=True)
class SavedConnection:
    """A connection of a stopped node, valid for a client that saw exactly `offset`."""

    v: Literal[1]
    offset: str
    luggage: ConnectionState


_MESSAGE_ADAPTER: TypeAdapter[FetchRequest | FetchReply] = TypeAdapter(FetchRequest | FetchReply)
_SAVED_ADAPTER: TypeAdapter[SavedConnection] = TypeAdapter(SavedConnection)


def connection_key(request: ResumeRequest) -> str:
    """The Redis key of a connection, derived from its secret `pid`, namespace and user."""
    secret = orjson.dumps([request.namespace, request.pid, request.org, request.user_id])
    return blake2b(secret, digest_size=16).hexdigest()


def encode(value: FetchRequest | FetchReply | SavedConnection) -> bytes | None:
    """Encode for Redis; None if it is too large."""
    encoded = orjson.dumps(value)
    return encoded if len(encoded) <= MAX_BYTES else None


def decode_message(message: object) -> FetchRequest | FetchReply | None:
    """Decode another node's message; None if it is malformed."""
    return _decode(_MESSAGE_ADAPTER, message)


def decode_saved(value: object) -> SavedConnection | None:
    """Decode a saved connection; None if it is malformed."""
    return _decode(_SAVED_ADAPTER, value)


def _decode(adapter: TypeAdapter[T], message: object) -> T | None:
    if not isinstance(message, bytes) or len(message) > MAX_BYTES:
        return None
    try:
        return adapter.validate_json(message, strict=True)
    except ValidationError:
        return None
