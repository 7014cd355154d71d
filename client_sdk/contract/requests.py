"""What a client may send, event by event."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from client_sdk.contract.names import MAX_TOPIC_CHARACTERS, SESSION_ID_PATTERN

TopicName = Annotated[str, Field(min_length=1, max_length=MAX_TOPIC_CHARACTERS)]
SessionId = Annotated[str, Field(pattern=SESSION_ID_PATTERN)]


class Request(BaseModel):
    """A request is exactly what it says: no other fields, no text for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ConnectAuth(BaseModel):
    """The `auth` payload of a connection; what other clients put beside it is let be."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    session_id: SessionId | None = None
    # Socket.IO's connection state recovery: what the client was given, and saw last.
    pid: str | None = Field(default=None, max_length=64)
    offset: str | None = Field(default=None, max_length=64)
    # Whether it wants any of that; without, no event has more than one argument.
    recovery: bool = True


class RefreshToken(Request):
    """`refresh_token`: go on with a newer token of the same user."""

    token: str = Field(min_length=1)


class Position(Request):
    """A place in a topic's history."""

    epoch: str = Field(min_length=1, max_length=64)
    seq: int = Field(ge=0)


class Subscribe(Request):
    """`subscribe` to one or more topics."""

    topics: list[TopicName] = Field(min_length=1, max_length=1000)
    interval_ms: int = Field(default=0, ge=0)
    since: dict[TopicName, Position] = Field(default_factory=dict)


class Unsubscribe(Request):
    """`unsubscribe` from topics."""

    topics: list[TopicName] = Field(min_length=1, max_length=1000)


class ListSubscriptions(Request):
    """`subscriptions`: what am I subscribed to?"""


class Publication(Request):
    """One message to publish; an `id` makes it idempotent, `user` says whose private topic."""

    topic: TopicName
    data: dict[str, object]
    type: Literal["update", "snapshot"] = "update"
    id: str | None = Field(default=None, min_length=1, max_length=128)
    user: str | None = Field(default=None, min_length=1, max_length=128)


class Publish(Request):
    """`publish` one or more messages; each is judged alone."""

    messages: list[object] = Field(min_length=1, max_length=1000)
