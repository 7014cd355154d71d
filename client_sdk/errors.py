"""One tree of errors; each carries a code that programs can rely on."""

from collections.abc import Mapping
from copy import copy
from typing import ClassVar, Self


class FloorcastError(Exception):
    """The root; `code` says what happened, `retry_after_ms` when to try again."""

    default_code: ClassVar[str] = "client.failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retry_after_ms: int | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.retry_after_ms = retry_after_ms
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"

    def clone(self) -> Self:
        """The same for another who waits: a traceback belongs to one of them."""
        return copy(self).with_traceback(None)


class AuthenticationError(FloorcastError):
    """The token is missing, not valid, or its time is over."""


class ForbiddenError(FloorcastError):
    """The token does not allow this."""


class LimitExceeded(FloorcastError):
    """Too much, too many or too often."""


class RequestRefused(FloorcastError):
    """The server could make no sense of a request."""


class TopicError(FloorcastError):
    """There is no such topic."""


class SessionError(FloorcastError):
    """Not in the session, or it was closed."""


class PublishConflict(FloorcastError):
    """Another message was published under this id."""


class ServerUnavailable(FloorcastError):
    """There is no server, or it cannot help now."""

    default_code = "client.unreachable"


class NotConnected(FloorcastError):
    """There is no connection, and this does not wait for one."""

    default_code = "client.not_connected"


class ConnectionLost(NotConnected):
    """The connection ended before the answer came."""

    default_code = "client.connection_lost"


class SendTimeout(FloorcastError):
    """No answer came in time; what was sent may have arrived or not."""

    default_code = "client.timeout"


class BufferFull(FloorcastError):
    """Too much waits already to be sent."""

    default_code = "client.buffer_full"


class ClientClosed(FloorcastError):
    """The client was closed."""

    default_code = "client.closed"


class InvalidData(FloorcastError):
    """This cannot be sent: it is no JSON that the server would take."""

    default_code = "client.invalid_data"


class TokenUnavailable(FloorcastError):
    """The function that gives tokens failed, or took too long."""

    default_code = "client.token"


class ProtocolError(FloorcastError):
    """What came is not what a Floorcast server says."""

    default_code = "client.protocol"


_BY_CODE: dict[str, type[FloorcastError]] = {
    "auth.forbidden": ForbiddenError,
    "publish.conflict": PublishConflict,
}
_BY_AREA: dict[str, type[FloorcastError]] = {
    "auth": AuthenticationError,
    "limit": LimitExceeded,
    "request": RequestRefused,
    "topic": TopicError,
    "session": SessionError,
    "server": ServerUnavailable,
}


def error_from_code(
    code: str,
    message: str,
    retry_after_ms: int | None = None,
    details: Mapping[str, object] | None = None,
) -> FloorcastError:
    """The error for a code of the server's; a code of tomorrow is one of its area."""
    kind = _BY_CODE.get(code) or _BY_AREA.get(code.partition(".")[0]) or FloorcastError
    return kind(message, code=code, retry_after_ms=retry_after_ms, details=details)


def is_retryable(error: FloorcastError) -> bool:
    """Whether the same may be taken later, or on another connection."""
    if isinstance(error, NotConnected | SendTimeout | ServerUnavailable):
        return True
    return error.code in ("limit.rate", "auth.expired")
