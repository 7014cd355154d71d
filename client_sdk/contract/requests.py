"""What a client sends, event by event: `/market`, then `/session`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from client_sdk.contract.annotations import Shown
from client_sdk.contract.names import (
    MAX_TOPIC_CHARACTERS,
    SESSION_ID_PATTERN,
    SYMBOL_MATCH_PATTERN,
    SYMBOL_PATTERN,
    InstrumentStatus,
)

TopicName = Annotated[str, Field(min_length=1, max_length=MAX_TOPIC_CHARACTERS)]
# The errors of a thousand bad topics would cost more than all else: the first one is enough.
TopicNames = Annotated[list[TopicName], FailFast(), Field(min_length=1, max_length=1000)]
SymbolMatch = Annotated[str, Field(pattern=SYMBOL_MATCH_PATTERN)]
Symbol = Annotated[str, Field(pattern=SYMBOL_PATTERN)]
SessionId = Annotated[str, Field(pattern=SESSION_ID_PATTERN)]


# A decimal above zero.
StepText = Annotated[
    str, Field(max_length=40, pattern=r"^(0\.[0-9]*[1-9][0-9]*|[1-9][0-9]*(\.[0-9]+)?)$")
]


class Request(BaseModel):
    """Strict: refuses unknown fields, and text where a number is due."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ConnectAuth(BaseModel):
    """The `auth` payload of a Socket.IO CONNECT; ignores fields of other clients."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    # Verified before this payload is; programs may send it as a header instead.
    token: str | None = Field(default=None, repr=False)
    session_id: SessionId | None = None
    # Connection state recovery: the private id that the server gave, and the last offset seen.
    pid: str | None = Field(default=None, max_length=64)
    offset: str | None = Field(default=None, max_length=64)
    # False opts out of recovery: then no event carries an offset as an extra argument.
    recovery: bool = True


class RefreshToken(Request):
    """`refresh_token`: continue with a newer token of the same user."""

    token: str = Field(min_length=1)


class Position(Request):
    """A position in the history of a topic or session."""

    epoch: str = Field(min_length=1, max_length=64)
    seq: int = Field(ge=0)


class SinceTime(Request):
    """A time, in ms: the messages of a topic that the server received then or later."""

    ts: int = Field(ge=0)


class Subscribe(Request):
    """`subscribe` to one or more topics; `last` asks for so many kept messages of each."""

    topics: TopicNames
    interval_ms: int = Field(default=0, ge=0)
    since: dict[TopicName, Position | SinceTime] = Field(default_factory=dict, max_length=1000)
    last: int = Field(default=0, ge=0, le=1000)


class InstrumentData(BaseModel):
    """What publishers say of a symbol; they may add fields, and null removes one."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    base: str | None = Field(default=None, min_length=1, max_length=32)
    quote: str | None = Field(default=None, min_length=1, max_length=32)
    tick_size: StepText | None = None
    lot_size: StepText | None = None
    status: Annotated[InstrumentStatus, Field(strict=False)] | None = None


class ListInstruments(Request):
    """`instruments`: list symbols; with `follow`, each change comes as an `instrument` event.

    `match` is a pattern such as `BTC*`. A reply has at most 1,000: ask again `after` the last one.
    """

    symbols: list[Symbol] | None = Field(default=None, min_length=1, max_length=1000)
    match: SymbolMatch = "*"
    follow: bool = False
    after: str = Field(default="", max_length=32)


class FetchCandles(Request):
    """`candles`: the newest bars of a symbol, or those that begin before a time in ms."""

    symbol: Symbol
    interval: Literal["1s", "5s", "1m", "5m", "15m", "1h", "4h", "1d"]
    limit: int = Field(default=500, ge=1, le=1000)
    before: int | None = Field(default=None, ge=0)


class Unsubscribe(Request):
    """`unsubscribe` from topics."""

    topics: TopicNames


class ListSubscriptions(Request):
    """`subscriptions`: list the topics of this connection."""


class Publication(Request):
    """One message to publish; an `id` makes it idempotent, `user` names a private topic's owner.

    `source_ts` is the venue's time of the message.
    """

    topic: TopicName
    data: dict[str, object]
    type: Literal["update", "snapshot"] = "update"
    id: str | None = Field(default=None, min_length=1, max_length=128)
    user: str | None = Field(default=None, min_length=1, max_length=128)
    source_ts: int | None = Field(default=None, ge=0, lt=2**53)


class Publish(Request):
    """`publish` one or more messages; the server validates each as a `Publication` of its own."""

    messages: list[Annotated[object, Shown(Publication)]] = Field(min_length=1, max_length=1000)


class WillRequest(Request):
    """`will`: publish these messages once the user has been gone for so long; null takes it back.

    The server validates each message as a `Publication` of its own.
    """

    after_ms: int | None = Field(default=None, ge=0)
    messages: list[Annotated[object, Shown(Publication)]] | None = Field(
        min_length=1, max_length=100
    )


class Join(Request):
    """`join` a session; `since` asks for missed messages, `metadata` describes a new session."""

    session_id: SessionId
    since: Position | None = None
    metadata: dict[str, object] | None = None


class Leave(Request):
    """`leave` a session."""

    session_id: SessionId


class Send(Request):
    """`send` a message to everybody in a session; an `id` makes it idempotent."""

    session_id: SessionId
    data: dict[str, object]
    id: str | None = Field(default=None, min_length=1, max_length=128)


class Signal(Request):
    """`signal` something transient, such as typing; the server does not store it."""

    session_id: SessionId
    data: dict[str, object]


class FetchHistory(Request):
    """`history`: the newest messages, or those before `before_seq`."""

    session_id: SessionId
    before_seq: int | None = Field(default=None, ge=1)
    limit: int = Field(default=100, ge=1, le=1000)


class ListParticipants(Request):
    """`participants`: list the users in a session."""

    session_id: SessionId


class Kick(Request):
    """`kick` a user out of a session, on every device."""

    session_id: SessionId
    user_id: str = Field(min_length=1, max_length=128)


class CloseSession(Request):
    """`close` a session for everybody."""

    session_id: SessionId
