"""The server's answers, as models that let a newer server say more."""

from typing import TypeVar

from pydantic import Field, ValidationError

from client_sdk.contract import Participant
from client_sdk.contract.messages import Body
from client_sdk.errors import FloorcastError, ProtocolError, error_from_code
from client_sdk.models import SessionMessage, TypedMessage

ReplyT = TypeVar("ReplyT", bound="Reply")


class PublishedPosition(Body):
    """Where something stands."""

    epoch: str
    seq: int


class ErrorBody(Body):
    """Why something was refused; `code` may be one that this SDK does not know yet."""

    code: str
    message: str = ""
    retry_after_ms: int | None = None
    details: dict[str, object] | None = None

    def to_error(self) -> FloorcastError:
        """As an exception."""
        return error_from_code(self.code, self.message, self.retry_after_ms, self.details)


class RejectedPublication(Body):
    """One of several that was refused."""

    error: ErrorBody


class Reply(Body):
    """What every answer has."""

    ok: bool
    error: ErrorBody | None = None


class ConnectError(Body):
    """Why a namespace was not joined."""

    message: str = ""
    data: ErrorBody | None = None

    def to_error(self) -> FloorcastError:
        """As an exception; without a code it is the protocol's."""
        if self.data is None:
            return ProtocolError(f"refused: {self.message}")
        return self.data.to_error()


class TopicReply(Body):
    """What became of one topic."""

    status: str
    epoch: str = ""
    seq: int = 0
    interval_ms: int = 0
    recovered: bool = False
    snapshot: TypedMessage | None = None
    missed: tuple[TypedMessage, ...] = ()
    error: ErrorBody | None = None


class SubscribeReply(Reply):
    """The answer to `subscribe`."""

    topics: dict[str, TopicReply] = Field(default_factory=dict)


class PublishReply(Reply):
    """The answer to `publish`: for each message its place, or why it has none."""

    positions: tuple[PublishedPosition | RejectedPublication, ...] = ()


class ParticipantsReply(Reply):
    """Who is in a session."""

    participant_count: int = 0
    participants: tuple[Participant, ...] = ()


class JoinReply(ParticipantsReply):
    """The answer to `join`."""

    epoch: str = ""
    seq: int = 0
    recovered: bool = False
    messages: tuple[SessionMessage, ...] = ()
    metadata: dict[str, object] = Field(default_factory=dict)


class SendReply(Reply):
    """The answer to `send`."""

    id: str = ""
    epoch: str = ""
    seq: int = 0
    ts: int = 0


class HistoryReply(Reply):
    """The answer to `history`."""

    messages: tuple[SessionMessage, ...] = ()


class ModerationReply(Reply):
    """The answer to `kick` and `close`: how many connections it ended."""

    connections: int = 0


def parse_reply(model: type[ReplyT], body: str, *, partial: bool = False) -> ReplyT:
    """Read an answer; a refusal is raised, unless it is `partial` and tells of each part."""
    try:
        answer = model.model_validate_json(body)
    except ValidationError as error:
        raise ProtocolError(f"an answer of no shape: {error.errors()[0]['msg']}") from None
    if not answer.ok and not partial:
        raise (answer.error or ErrorBody(code="server.internal")).to_error()
    return answer
