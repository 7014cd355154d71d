"""The SDK's exceptions: one root, each with a code that programs can rely on."""

from collections.abc import Mapping
from copy import copy
from typing import ClassVar, Self

from client_sdk.contract import ErrorBody


class FloorcastError(Exception):
    """The root; `code` says what happened, `retry_after_ms` when a retry can succeed."""

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
        """A copy without traceback, to raise the same error in several tasks."""
        return copy(self).with_traceback(None)


class AuthenticationError(FloorcastError):
    """The token is missing, invalid or expired."""


class ForbiddenError(FloorcastError):
    """The token does not allow this."""


class LimitExceeded(FloorcastError):
    """A rate, count or size limit was exceeded."""


class RequestRefused(FloorcastError):
    """The server found a request invalid."""


class TopicError(FloorcastError):
    """The topic does not exist."""


class SessionError(FloorcastError):
    """The session is not joined, or was closed."""


class PublishConflict(FloorcastError):
    """A different message was published under the same id."""


class ConfigError(FloorcastError, ValueError):
    """An address, a token or a setting is wrong: no retry can help."""

    default_code = "client.config"


class ServerUnavailable(FloorcastError):
    """The server is unreachable, or cannot serve now."""

    default_code = "client.unreachable"


class NotConnected(FloorcastError):
    """There is no connection, and this call does not wait for one."""

    default_code = "client.not_connected"


class ConnectionLost(NotConnected, ConnectionError):
    """The connection ended before the reply arrived."""

    default_code = "client.connection_lost"


class SendTimeout(FloorcastError, TimeoutError):
    """No reply arrived in time; the request may have succeeded."""

    default_code = "client.timeout"


class BufferFull(FloorcastError):
    """Too many requests wait to be sent."""

    default_code = "client.buffer_full"


class ClientClosed(FloorcastError):
    """The client is closed."""

    default_code = "client.closed"


class InvalidData(FloorcastError):
    """The data is not JSON that the server accepts."""

    default_code = "client.invalid_data"


class TokenUnavailable(FloorcastError):
    """The token function failed or timed out."""

    default_code = "client.token"


class ProtocolError(FloorcastError):
    """The server violated the protocol: it is no Floorcast server, or an incompatible one."""

    default_code = "client.protocol"


_BY_CODE: dict[str, type[FloorcastError]] = {
    "auth.forbidden": ForbiddenError,
    "auth.unavailable": ServerUnavailable,
    "publish.conflict": PublishConflict,
    "publish.snapshot_required": RequestRefused,
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
    """The exception for a server's error code; an unknown code maps by its area."""
    kind = _BY_CODE.get(code) or _BY_AREA.get(code.partition(".")[0]) or FloorcastError
    return kind(message, code=code, retry_after_ms=retry_after_ms, details=details)


def error_from_body(body: ErrorBody) -> FloorcastError:
    """The exception for an error that the server sent."""
    return error_from_code(body.code, body.message, body.retry_after_ms, body.details)


def is_retryable(error: FloorcastError) -> bool:
    """True if the same request can succeed later, or on another connection."""
    if isinstance(error, NotConnected | SendTimeout | ServerUnavailable):
        return True
    return error.code in ("limit.rate", "auth.expired")
