"""The server's answers, as models that let a newer server say more."""

from typing import TypeVar

from pydantic import Field, ValidationError

from client_sdk.contract import Participant
from client_sdk.contract.messages import Body
from client_sdk.errors import FloorcastError, ProtocolError, refusal
from client_sdk.models import SessionMessage, TypedMessage

AnswerT = TypeVar("AnswerT", bound="Answer")


class Place(Body):
    """Where something stands."""

    epoch: str
    seq: int


class Problem(Body):
    """Why something was refused; `code` may be one that this SDK does not know yet."""

    code: str
    message: str = ""
    retry_after_ms: int | None = None
    details: dict[str, object] | None = None

    def error(self) -> FloorcastError:
        """As an exception."""
        return refusal(self.code, self.message, self.retry_after_ms, self.details)


class Refused(Body):
    """One of several that was refused."""

    error: Problem


class Answer(Body):
    """What every answer has."""

    ok: bool
    error: Problem | None = None


class ConnectRefusal(Body):
    """Why a namespace was not joined."""

    message: str = ""
    data: Problem | None = None

    def refusal(self) -> FloorcastError:
        """As an exception; without a code it is the protocol's."""
        if self.data is None:
            return ProtocolError(f"refused: {self.message}")
        return self.data.error()


class TopicAnswer(Body):
    """What became of one topic."""

    status: str
    epoch: str = ""
    seq: int = 0
    interval_ms: int = 0
    recovered: bool = False
    snapshot: TypedMessage | None = None
    missed: tuple[TypedMessage, ...] = ()
    error: Problem | None = None


class SubscribeAnswer(Answer):
    """The answer to `subscribe`."""

    topics: dict[str, TopicAnswer] = Field(default_factory=dict)


class PublishAnswer(Answer):
    """The answer to `publish`: for each message its place, or why it has none."""

    positions: tuple[Place | Refused, ...] = ()


class AttendanceAnswer(Answer):
    """Who is in a session."""

    participant_count: int = 0
    participants: tuple[Participant, ...] = ()


class JoinAnswer(AttendanceAnswer):
    """The answer to `join`."""

    epoch: str = ""
    seq: int = 0
    recovered: bool = False
    messages: tuple[SessionMessage, ...] = ()
    metadata: dict[str, object] = Field(default_factory=dict)


class SendAnswer(Answer):
    """The answer to `send`."""

    id: str = ""
    epoch: str = ""
    seq: int = 0
    ts: int = 0


class HistoryAnswer(Answer):
    """The answer to `history`."""

    messages: tuple[SessionMessage, ...] = ()


class ModerationAnswer(Answer):
    """The answer to `kick` and `close`: how many connections it ended."""

    connections: int = 0


def read(model: type[AnswerT], body: str, *, partial: bool = False) -> AnswerT:
    """Read an answer; a refusal is raised, unless it is `partial` and tells of each part."""
    try:
        answer = model.model_validate_json(body)
    except ValidationError as error:
        raise ProtocolError(f"an answer of no shape: {error.errors()[0]['msg']}") from None
    if not answer.ok and not partial:
        raise (answer.error or Problem(code="server.internal")).error()
    return answer
