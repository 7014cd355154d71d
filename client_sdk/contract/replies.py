"""The server's replies to requests; a client ignores fields that it does not know."""

from pydantic import Field

from client_sdk.contract.messages import (
    Body,
    ErrorBody,
    Participant,
    SessionMessage,
    TypedMessage,
)
from client_sdk.contract.names import FeedState


class Reply(Body):
    """The base of all replies."""

    ok: bool
    error: ErrorBody | None = None


class ConnectError(Body):
    """The payload of a Socket.IO CONNECT_ERROR packet."""

    message: str = ""
    data: ErrorBody | None = None


class TopicReply(Body):
    """The outcome for one topic; only a granted subscription has a position."""

    status: str
    # The state of the feed; a server that is older names none.
    state: FeedState | None = None
    # False if nobody has ever published there: the subscription begins once somebody does.
    known: bool = True
    epoch: str = ""
    seq: int = 0
    interval_ms: int = 0
    recovered: bool = False
    snapshot: TypedMessage | None = None
    missed: tuple[TypedMessage, ...] = ()
    error: ErrorBody | None = None


class SubscribeReply(Reply):
    """The reply to `subscribe`; not `ok` if every topic was refused."""

    topics: dict[str, TopicReply] = Field(default_factory=dict)


class PublishedPosition(Body):
    """The position of a published message; unlike a request's `Position`, not strict."""

    epoch: str
    seq: int


class RejectedPublication(Body):
    """Why one message of a batch was not published."""

    error: ErrorBody


class PublishReply(Reply):
    """The reply to `publish`: one outcome for each message, in order."""

    positions: tuple[PublishedPosition | RejectedPublication, ...] = ()


class ParticipantsReply(Reply):
    """The reply to `participants`."""

    participant_count: int = 0
    participants: tuple[Participant, ...] = ()


class JoinReply(ParticipantsReply):
    """The reply to `join`."""

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
