"""The questions that nodes ask each other, and how they are encoded."""

from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
from pydantic import Field, TypeAdapter

from server.core.revocations import Revocation


@dataclass(frozen=True, slots=True)
class FindConnections:
    """The connections of an org after an id, sorted by id; what is None does not matter."""

    org: str
    user_id: str | None = None
    topic: str | None = None
    session_id: str | None = None
    after: str = ""
    limit: int = 50
    kind: Literal["connections"] = "connections"


@dataclass(frozen=True, slots=True)
class FindConnection:
    """One connection by its id."""

    org: str
    connection_id: str
    kind: Literal["connection"] = "connection"


@dataclass(frozen=True, slots=True)
class CountSubscribers:
    """How many connections of an org are subscribed to a channel."""

    org: str
    channel: str
    kind: Literal["subscribers"] = "subscribers"


@dataclass(frozen=True, slots=True)
class FindTopics:
    """The public topics after a name that an org is subscribed to, sorted by name."""

    org: str
    match: str = "*"
    after: str = ""
    limit: int = 50
    kind: Literal["topics"] = "topics"


@dataclass(frozen=True, slots=True)
class DisconnectConnection:
    """Disconnect one connection, and count it."""

    org: str
    connection_id: str
    code: str
    message: str
    reconnect: bool
    kind: Literal["disconnect_connection"] = "disconnect_connection"


@dataclass(frozen=True, slots=True)
class DisconnectUser:
    """Disconnect a user, and count the connections."""

    org: str
    user_id: str
    code: str
    message: str
    reconnect: bool
    kind: Literal["disconnect"] = "disconnect"


@dataclass(frozen=True, slots=True)
class CountRevoked:
    """How many connections have a token that a revocation refuses."""

    revocation: Revocation
    kind: Literal["revoked"] = "revoked"


@dataclass(frozen=True, slots=True)
class DescribeNode:
    """What a node is doing."""

    org: str
    kind: Literal["node"] = "node"


@dataclass(frozen=True, slots=True)
class MarkFeed:
    """Mark the channels of a feed of another node stale, or the feed live if None."""

    node: str
    feed: str
    channels: list[str] | None
    kind: Literal["feed"] = "feed"


@dataclass(frozen=True, slots=True)
class FindDemand:
    """What the clients of a node are subscribed to; `known` has the versions of earlier answers."""

    known: dict[str, int]
    kind: Literal["demand"] = "demand"


Question = (
    FindConnections
    | FindConnection
    | CountSubscribers
    | FindTopics
    | DisconnectConnection
    | DisconnectUser
    | CountRevoked
    | DescribeNode
    | MarkFeed
    | FindDemand
)

_QUESTION: TypeAdapter[Question] = TypeAdapter(Annotated[Question, Field(discriminator="kind")])


def encode_question(question: Question) -> bytes:
    """Encode for the other nodes."""
    return orjson.dumps(question)


def decode_question(message: bytes) -> Question:
    """Decode; raises `ValidationError` if it is malformed, or of a newer version."""
    return _QUESTION.validate_json(message)
