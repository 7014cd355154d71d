"""What a server sends: the bodies of its events and answers."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from client_sdk.contract.codes import ErrorCode
from client_sdk.contract.names import FeedState, Stream, SubscriptionStatus


class Body(BaseModel):
    """A server may learn to say more: a client lets unknown fields be."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ErrorBody(Body):
    """Why something was refused."""

    code: ErrorCode
    message: str
    retry_after_ms: int | None = None
    details: dict[str, object] | None = None


class Welcome(Body):
    """The first event after connecting."""

    connection_id: str
    user_id: str
    org: str
    server_time: int
    ping_interval_ms: int
    resume_window_ms: int
    session_id: str | None = None


class Goodbye(Body):
    """The last event before the server ends a connection."""

    code: ErrorCode
    message: str
    reconnect: bool
    after_ms: int


class TokenExpiring(Body):
    """The token ends soon; `refresh_token` avoids a reconnect."""

    expires_in_ms: int


class Message(Body):
    """One market message; its `data` is judged by the model of its stream."""

    stream: Stream
    symbol: str | None
    type: Literal["snapshot", "update", "heartbeat"]
    epoch: str
    seq: int
    prev: int
    ts: int
    data: dict[str, object]
    merged: int | None = None
    age_ms: int | None = None


class Status(Body):
    """`status`: whether a topic's feed speaks; a silent one must not look like a calm market."""

    stream: Stream
    symbol: str | None
    state: FeedState
    since_ms: int | None = None


class TopicReply(Body):
    """What became of one topic of a request; positions only where there is a subscription."""

    status: SubscriptionStatus
    epoch: str | None = None
    seq: int | None = None
    interval_ms: int | None = None
    recovered: bool | None = None
    snapshot: Message | None = None
    missed: tuple[Message, ...] = ()
    error: ErrorBody | None = None
