"""Writes what nodes tell each other of connections that move, and reads it with suspicion."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from server.core.recovery.connection_state import Luggage, Reclaim

T = TypeVar("T")

# 200 topics are some 20 KB.
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Ask:
    """A node asks another one for a connection; the number comes back with the answer."""

    v: Literal[1]
    ask: int
    node: str
    reclaim: Reclaim


@dataclass(frozen=True, slots=True)
class Answer:
    """What it is given."""

    v: Literal[1]
    answer: int
    luggage: Luggage | None


@dataclass(frozen=True, slots=True)
class Saved:
    """A connection whose node has ended, for a client that has seen exactly so much."""

    v: Literal[1]
    offset: str
    luggage: Luggage


_TOLD: TypeAdapter[Ask | Answer] = TypeAdapter(Ask | Answer)
_SAVED: TypeAdapter[Saved] = TypeAdapter(Saved)


def name_of(reclaim: Reclaim) -> str:
    """What Redis knows a connection by: its owner finds it with the secret, and nobody else."""
    secret = orjson.dumps([reclaim.namespace, reclaim.pid, reclaim.org, reclaim.user_id])
    return blake2b(secret, digest_size=16).hexdigest()


def write(told: Ask | Answer | Saved) -> bytes | None:
    """As it goes to Redis; None where it is too large to."""
    encoded = orjson.dumps(told)
    return encoded if len(encoded) <= MAX_BYTES else None


def read_told(message: object) -> Ask | Answer | None:
    """What another node says; None for anything that none of ours has said."""
    return _read(_TOLD, message)


def read_saved(value: object) -> Saved | None:
    """What a node has left behind."""
    return _read(_SAVED, value)


def _read(adapter: TypeAdapter[T], message: object) -> T | None:
    if not isinstance(message, bytes) or len(message) > MAX_BYTES:
        return None
    try:
        return adapter.validate_json(message, strict=True)
    except ValidationError:
        return None
