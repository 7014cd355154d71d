"""The messages that users of the SDK get: typed by their stream, with their age."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from client_sdk import contract
from client_sdk.connection.clock import ServerClock
from client_sdk.contract import Stream
from client_sdk.contract.messages import Body


def topic_name(stream: Stream, symbol: str | None) -> str:
    """`PRICE:BTCUSDT`, and `USER_DATA` alone."""
    # A stream is a string; asking for its `value` would cost more than all of this.
    return ":".join((stream,) if symbol is None else (stream, symbol))


class Message(Body):
    """What all messages have; `age` is in seconds, by the server's clock."""

    # Not a field: it is the client's, and costs a message no more than a pointer.
    __slots__ = ("clock",)

    epoch: str
    seq: int
    ts: int

    @property
    def age(self) -> float:
        """How old it is now."""
        # A message that was copied or pickled has no clock any more.
        clock: ServerClock | None = getattr(self, "clock", None)
        return (clock or ServerClock()).age_seconds(self.ts)

    def use_clock(self, clock: ServerClock) -> None:
        """Let its age be told by this clock."""
        object.__setattr__(self, "clock", clock)


class MarketMessage(Message):
    """One message of a topic."""

    stream: Stream
    symbol: str | None = None
    type: Literal["snapshot", "update", "heartbeat"]
    prev: int
    merged: int | None = None
    age_ms: int | None = None

    @property
    def topic(self) -> str:
        """The topic that it belongs to."""
        return topic_name(self.stream, self.symbol)


class BookData(contract.BookData):
    """Levels of a book; what a newer server adds is let be."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class PriceMessage(MarketMessage):
    """The price of a symbol."""

    stream: Literal[Stream.PRICE]
    symbol: str
    data: contract.PriceData


class BookMessage(MarketMessage):
    """A book, or what changed in it."""

    stream: Literal[Stream.ORDERBOOK]
    symbol: str
    data: BookData


class TradesMessage(MarketMessage):
    """Deals of a symbol."""

    stream: Literal[Stream.TRADES]
    symbol: str
    data: contract.TradesData


class UserDataMessage(MarketMessage):
    """Something about the user."""

    stream: Literal[Stream.USER_DATA]
    data: contract.UserData


class BotStatusMessage(MarketMessage):
    """The state of a bot."""

    stream: Literal[Stream.BOT_STATUS]
    data: contract.BotStatus


class RiskAlertMessage(MarketMessage):
    """A warning."""

    stream: Literal[Stream.RISK_ALERTS]
    data: contract.RiskAlert


class OrderUpdateMessage(MarketMessage):
    """What became of an order."""

    stream: Literal[Stream.ORDER_UPDATES]
    data: contract.OrderUpdate


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

# By the name of the event that carries them.
MESSAGE_MODELS: dict[str, type[MarketMessage]] = {
    Stream.PRICE.event: PriceMessage,
    Stream.ORDERBOOK.event: BookMessage,
    Stream.TRADES.event: TradesMessage,
    Stream.USER_DATA.event: UserDataMessage,
    Stream.BOT_STATUS.event: BotStatusMessage,
    Stream.RISK_ALERTS.event: RiskAlertMessage,
    Stream.ORDER_UPDATES.event: OrderUpdateMessage,
}


class SessionMessage(Message):
    """What somebody said in a session."""

    session_id: str
    id: str
    user_id: str
    data: dict[str, object]

    @property
    def topic(self) -> str:
        """The session that it belongs to."""
        return self.session_id

    @property
    def prev(self) -> int:
        """Sessions are kept whole: the one before is always the one that counts one less."""
        return self.seq - 1

    @property
    def type(self) -> str:
        """As messages of topics have it."""
        return "update"


class UserJoined(contract.MemberChange):
    """A user's first connection came into a session."""


class UserLeft(contract.MemberChange):
    """A user's last connection has left a session."""


class SessionSignal(Body):
    """Something of the moment, from somebody else."""

    session_id: str
    user_id: str
    data: dict[str, object]
    ts: int


SessionEvent = UserJoined | UserLeft | SessionSignal

# By the name of the event that carries them.
SESSION_EVENT_MODELS: dict[str, type[SessionEvent]] = {
    "user_joined": UserJoined,
    "user_left": UserLeft,
    "signal": SessionSignal,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a message stands that was sent to a session."""

    id: str
    position: contract.Position
    ts: int


@dataclass(frozen=True, slots=True)
class Attendance:
    """Who is in a session; a user with several devices counts once."""

    participant_count: int
    participants: tuple[contract.Participant, ...]


class GapReason(StrEnum):
    """Why something is missing."""

    # The server's history does not reach back so far, or it is too much for an answer.
    HISTORY = "history"
    # The server has lost its past.
    EPOCH = "epoch"


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that this reader will never get, in their place among those that it gets.

    `missed_to` is None where nobody knows how many were in the lost epoch.
    """

    topic: str
    epoch: str
    missed_from: int
    missed_to: int | None
    reason: GapReason
