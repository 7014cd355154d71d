"""The server's replies to requests; a client ignores fields that it does not know."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from client_sdk.contract.annotations import SENT_AS_NULL, LeftOut, Outcome
from client_sdk.contract.messages import (
    Body,
    ErrorBody,
    Instrument,
    Participant,
    SessionMessage,
    TypedMessage,
)
from client_sdk.contract.names import FeedState, SubscriptionStatus
from client_sdk.contract.streams import Bar


class Reply(Body):
    """The reply to a request that has nothing to return."""

    outcome: ClassVar[Outcome | None] = Outcome("ok", True, False)

    ok: bool
    error: ErrorBody | None = None


class ConnectError(Body):
    """The payload of a Socket.IO CONNECT_ERROR packet."""

    message: str = ""
    data: ErrorBody | None = None


class TopicReply(Body):
    """The outcome for one topic; only a granted subscription has a position."""

    outcome: ClassVar[Outcome | None] = Outcome(
        "status", SubscriptionStatus.CONNECTED.value, SubscriptionStatus.ERROR.value
    )

    status: str
    # The state of the feed; a server that is older names none.
    state: FeedState | None = None
    # False if nobody has ever published there: the subscription begins once somebody does.
    known: bool = True
    epoch: str = ""
    seq: int = 0
    interval_ms: int = 0
    recovered: bool = False
    snapshot: Annotated[TypedMessage | None, SENT_AS_NULL] = None
    missed: tuple[TypedMessage, ...] = ()
    error: ErrorBody | None = None


class PatternReply(Body):
    """The outcome for a pattern: the replies of the topics that match now.

    If more match than the connection may have, `refused` is their number and `limit` the error.
    """

    status: str
    matched: int
    topics: dict[str, TopicReply]
    refused: int | None = None
    limit: ErrorBody | None = None


class SubscribeReply(Reply):
    """The reply to `subscribe` and to `subscriptions`; not `ok` if every topic was refused."""

    outcome: ClassVar[Outcome | None] = Outcome("ok", True, False, kept=("topics",))

    # By the name that the client gave.
    topics: dict[str, Annotated[PatternReply | TopicReply, Field(union_mode="left_to_right")]] = (
        Field(default_factory=dict)
    )


class UnsubscribedTopic(Body):
    """The outcome for one topic that a client unsubscribed from."""

    status: Literal[SubscriptionStatus.DISCONNECTED] = SubscriptionStatus.DISCONNECTED


class UnsubscribeReply(Reply):
    """The reply to `unsubscribe`."""

    topics: dict[str, UnsubscribedTopic] = Field(default_factory=dict)


class RefreshReply(Reply):
    """The reply to `refresh_token`; `topics` has those that the newer token no longer allows."""

    expires_at: int = 0
    topics: dict[str, TopicReply] | None = None


class InstrumentsReply(Reply):
    """The reply to `instruments`, by symbol; ask again `after` the last one if it `has_more`."""

    outcome: ClassVar[Outcome | None] = Outcome("ok", True, False)

    instruments: tuple[Instrument, ...] = ()
    has_more: Annotated[bool, LeftOut()] = False


class CandlesReply(Reply):
    """The reply to `candles`: bars, oldest first."""

    outcome: ClassVar[Outcome | None] = Outcome("ok", True, False)

    symbol: str = ""
    interval: str = ""
    bars: tuple[Bar, ...] = ()


class PublishedPosition(Body):
    """The position of a published message; unlike a request's `Position`, not strict."""

    epoch: str
    seq: int


class RejectedPublication(Body):
    """Why one message of a batch was not published."""

    error: ErrorBody


class PublishReply(Reply):
    """The reply to `publish`: one outcome for each message, in order."""

    outcome: ClassVar[Outcome | None] = Outcome("ok", True, False, kept=("positions",))

    positions: tuple[PublishedPosition | RejectedPublication, ...] = ()


class ParticipantsReply(Reply):
    """The reply to `participants`."""

    participant_count: int = 0
    participants: tuple[Participant, ...] = ()


class JoinReply(ParticipantsReply):
    """The reply to `join`."""

    session_id: str = ""
    epoch: str = ""
    seq: int = 0
    recovered: bool = False
    messages: tuple[SessionMessage, ...] = ()
    metadata: dict[str, object] = Field(default_factory=dict)


class SendReply(Reply):
    """The reply to `send`."""

    id: str = ""
    epoch: str = ""
    seq: int = 0
    ts: int = 0


class HistoryReply(Reply):
    """The reply to `history`."""

    messages: tuple[SessionMessage, ...] = ()


class ModerationReply(Reply):
    """The reply to `kick` and `close`: the number of connections that were removed."""

    connections: int = 0
