"""Writes what nodes tell each other of connections that move, and reads it with suspicion."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from server.core.recovery.connection_state import ConnectionState, ResumeRequest

T = TypeVar("T")

# 200 topics are some 20 KB.
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A node asks another one for a connection; the number comes back with the answer."""

    v: Literal[1]
    ask: int
    node: str
    reclaim: ResumeRequest


@dataclass(frozen=True, slots=True)
class FetchReply:
    """What it is given."""

    v: Literal[1]
    answer: int
    luggage: ConnectionState | None


@dataclass(frozen=True, slots=True)
class SavedConnection:
    """A connection whose node has ended, for a client that has seen exactly so much."""

    v: Literal[1]
    offset: str
    luggage: ConnectionState


_MESSAGE_ADAPTER: TypeAdapter[FetchRequest | FetchReply] = TypeAdapter(FetchRequest | FetchReply)
_SAVED_ADAPTER: TypeAdapter[SavedConnection] = TypeAdapter(SavedConnection)


def connection_key(request: ResumeRequest) -> str:
    """What Redis knows a connection by: its owner finds it with the secret, and nobody else."""
    secret = orjson.dumps([request.namespace, request.pid, request.org, request.user_id])
    return blake2b(secret, digest_size=16).hexdigest()


def encode(value: FetchRequest | FetchReply | SavedConnection) -> bytes | None:
    """As it goes to Redis; None where it is too large to."""
    encoded = orjson.dumps(value)
    return encoded if len(encoded) <= MAX_BYTES else None


def decode_message(message: object) -> FetchRequest | FetchReply | None:
    """What another node says; None for anything that none of ours has said."""
    return _decode(_MESSAGE_ADAPTER, message)


def decode_saved(value: object) -> SavedConnection | None:
    """What a node has left behind."""
    return _decode(_SAVED_ADAPTER, value)


def _decode(adapter: TypeAdapter[T], message: object) -> T | None:
    if not isinstance(message, bytes) or len(message) > MAX_BYTES:
        return None
    try:
        return adapter.validate_json(message, strict=True)
    except ValidationError:
        return None
