"""The events that a server sends; a client ignores fields that it does not know."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from client_sdk.contract.annotations import SENT_AS_NULL, LeftOut, Outcome, Shown
from client_sdk.contract.names import ErrorCode, FeedState, InstrumentStatus, Stream, topic_name
from client_sdk.contract.requests import Position
from client_sdk.contract.streams import (
    Bar,
    BookData,
    BotStatus,
    OrderUpdate,
    PriceData,
    RiskAlert,
    Trade,
    UserData,
)


class Body(BaseModel):
    """The base of all that a server sends."""

    # The field that tells an accepted request from a refused one, in replies.
    outcome: ClassVar[Outcome | None] = None

    model_config = ConfigDict(frozen=True, extra="ignore")


class ErrorBody(Body):
    """Why the server refused something; a newer server may use a `code` unknown to this SDK."""

    code: Annotated[str, Shown(ErrorCode | str)]
    message: str = ""
    retry_after_ms: int | None = None
    details: dict[str, object] | None = None


# --- the connection


class Welcome(Body):
    """`welcome`: the first event after joining a namespace."""

    connection_id: str
    user_id: str
    org: str
    server_time: int
    ping_interval_ms: int
    resume_window_ms: int
    # Over how long clients must spread if they all lose the server; older servers name none.
    reconnect_spread_ms: int | None = None
    session_id: str | None = None


class Goodbye(Body):
    """`goodbye`: the last event before the server ends a connection or namespace."""

    code: Annotated[str, Shown(ErrorCode | str)]
    message: str = ""
    reconnect: bool = True
    after_ms: int = 0


class ReconnectHint(Body):
    """`reconnect_hint`: the server asks the client to reconnect after a delay."""

    after_ms: int = 0


class TokenExpiring(Body):
    """`token_expiring`: the token ends soon; `refresh_token` avoids a reconnect."""

    expires_in_ms: int = 0


# --- messages with a position


class MessageClock(Protocol):
    """The server's time as a client estimates it."""

    def age_seconds(self, ts_ms: int) -> float:
        """The time since `ts_ms`, never negative."""


class Message(Body):
    """The base of market and session messages."""

    # Not a field: the clock belongs to the client, and costs a message one pointer.
    __slots__ = ("clock",)

    epoch: str
    seq: int
    ts: int

    @property
    def position(self) -> Position:
        """A checkpoint: the `since` from which reading goes on after this message."""
        return Position(epoch=self.epoch, seq=self.seq)

    @property
    def age(self) -> float:
        """The time since the server stamped it, in seconds by the server's clock.

        A copied or unpickled message has no server clock and uses the local one.
        """
        clock: MessageClock | None = getattr(self, "clock", None)
        if clock is None:
            return max(0.0, datetime.now(UTC).timestamp() - self.ts / 1000)
        return clock.age_seconds(self.ts)

    def use_clock(self, clock: MessageClock) -> None:
        """Compute `age` by this clock."""
        object.__setattr__(self, "clock", clock)


def _show_kinds(schema: dict[str, Any], model: type["MarketMessage"]) -> None:
    """Leave out `heartbeat` where data is due: a `Heartbeat` has none."""
    kinds = schema["properties"]["type"]
    if "data" in model.model_fields and "enum" in kinds:
        kinds["enum"] = ["snapshot", "update"]


class MarketMessage(Message):
    """One message of a topic."""

    model_config = ConfigDict(json_schema_extra=_show_kinds)

    stream: Stream
    symbol: Annotated[str | None, SENT_AS_NULL] = None
    # What is behind the `@` of the topic of a view.
    view: str | None = None
    type: Literal["snapshot", "update", "heartbeat"]
    prev: int
    # The venue's time, if the publisher gave it; `ts` is the server's.
    source_ts: int | None = None
    merged: int | None = None
    age_ms: int | None = None

    @property
    def topic(self) -> str:
        """The name of its topic."""
        if self.symbol is not None and self.view is None:
            # As `topic_name`, without its call: a client asks for each message.
            return ":".join((self.stream, self.symbol))
        return topic_name(self.stream, self.symbol, self.view)


class Heartbeat(MarketMessage):
    """The newest position of a quiet topic, in the event of its stream; its data is empty."""

    type: Literal["heartbeat"]
    data: dict[str, object]


class ReceivedBookData(BookData):
    """Book levels as a client reads them: unknown fields of a newer server are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, title="BookData")


class ReceivedTradesData(Body):
    """What a client gets of trades: the trades, or the bars of a view."""

    model_config = ConfigDict(frozen=True, extra="allow")

    trades: Annotated[tuple[Trade, ...], LeftOut()] = ()
    bars: tuple[Bar, ...] | None = None


class PriceMessage(MarketMessage):
    """The price of a symbol."""

    stream: Literal[Stream.PRICE]
    symbol: str
    data: PriceData


class BookMessage(MarketMessage):
    """An order book snapshot, or the levels that changed."""

    stream: Literal[Stream.ORDERBOOK]
    symbol: str
    data: ReceivedBookData


class TradesMessage(MarketMessage):
    """Trades of a symbol."""

    stream: Literal[Stream.TRADES]
    symbol: str
    data: ReceivedTradesData


class UserDataMessage(MarketMessage):
    """Private data of the user."""

    stream: Literal[Stream.USER_DATA]
    data: UserData


class BotStatusMessage(MarketMessage):
    """The status of a bot."""

    stream: Literal[Stream.BOT_STATUS]
    data: BotStatus


class RiskAlertMessage(MarketMessage):
    """A risk alert."""

    stream: Literal[Stream.RISK_ALERTS]
    data: RiskAlert


class OrderUpdateMessage(MarketMessage):
    """The new state of an order."""

    stream: Literal[Stream.ORDER_UPDATES]
    data: OrderUpdate


AnyMessage = (
    PriceMessage
    | BookMessage
    | TradesMessage
    | UserDataMessage
    | BotStatusMessage
    | RiskAlertMessage
    | OrderUpdateMessage
)
TypedMessage = Annotated[AnyMessage, Field(discriminator="stream")]

# By event name.
MESSAGE_MODELS: dict[str, type[MarketMessage]] = {
    Stream.PRICE.event: PriceMessage,
    Stream.ORDERBOOK.event: BookMessage,
    Stream.TRADES.event: TradesMessage,
    Stream.USER_DATA.event: UserDataMessage,
    Stream.BOT_STATUS.event: BotStatusMessage,
    Stream.RISK_ALERTS.event: RiskAlertMessage,
    Stream.ORDER_UPDATES.event: OrderUpdateMessage,
}


class Status(Body):
    """`status`: the freshness of a topic's feed."""

    stream: Stream
    symbol: str | None
    view: str | None = None
    state: FeedState
    since_ms: int | None = None
    error: ErrorBody | None = None


class Instrument(Body):
    """`instrument`, and one of `instruments`: a symbol with what publishers say of it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    symbol: str
    base: str | None = None
    quote: str | None = None
    tick_size: str | None = None
    lot_size: str | None = None
    status: InstrumentStatus = InstrumentStatus.OPEN
    # What was ever published of it.
    streams: tuple[Stream, ...] = ()


# --- sessions


class SessionMessage(Message):
    """`message`: one message of a session."""

    session_id: str
    id: str
    user_id: str
    data: dict[str, object]

    @property
    def topic(self) -> str:
        """The id of its session."""
        return self.session_id

    @property
    def prev(self) -> int:
        """The position before this one; sessions keep every message."""
        return self.seq - 1

    @property
    def type(self) -> str:
        """Always `update`, as in market messages."""
        return "update"


class Participant(Body):
    """One user in a session; `joined_at` is when the first connection joined, in ms."""

    user_id: str
    connections: int
    joined_at: int


class MemberChange(Body):
    """A change of the users in a session."""

    session_id: str
    user_id: str
    participant_count: int
    ts: int


class UserJoined(MemberChange):
    """`user_joined`: the user's first connection joined the session."""


class UserLeft(MemberChange):
    """`user_left`: the user's last connection left the session."""


class SessionSignal(Body):
    """`signal`: a transient event of another participant."""

    session_id: str
    user_id: str
    data: dict[str, object]
    ts: int


SessionEvent = UserJoined | UserLeft | SessionSignal

# By event name.
SESSION_EVENT_MODELS: dict[str, type[SessionEvent]] = {
    "user_joined": UserJoined,
    "user_left": UserLeft,
    "signal": SessionSignal,
}


class SessionClosed(Body):
    """`session_closed`: the session was closed, or this connection is no longer in it."""

    session_id: str
    reason: str = "closed"
    ts: int = 0


class Notification(Body):
    """`notification`: for one user, on every device; a critical one asks for an acknowledgement."""

    id: str
    event: str
    data: dict[str, object]
    critical: bool
    ts: int
