"""The errors that the server reports to clients, each with a code."""

from collections.abc import Mapping

from client_sdk.contract import ErrorCode


class FloorcastError(Exception):
    """A refused request; the edge translates it into an error body."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after_ms: int | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.details = details

    @property
    def wire_code(self) -> str:
        """The code as a client sees it."""
        return self.code.value

    def body(self) -> dict[str, object]:
        """The error as the contract shows it to a client."""
        body: dict[str, object] = {"code": self.wire_code, "message": self.message}
        if self.retry_after_ms is not None:
            body["retry_after_ms"] = self.retry_after_ms
        if self.details is not None:
            body["details"] = dict(self.details)
        return body


class Dismissal(FloorcastError):
    """The end of a connection that an operator decides, with a code of the operator's own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(ErrorCode.AUTH_FORBIDDEN, message)
        self._own_code = code

    @property
    def wire_code(self) -> str:
        return self._own_code


class AccessError(FloorcastError):
    """The client is not authenticated, or not authorized to do this."""


class LimitError(FloorcastError):
    """The request exceeds a limit."""


class WriteConflict(FloorcastError):
    """Another publisher moved the head of the log first; the write can be retried."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.SERVER_OVERLOADED, "too many concurrent updates of this channel: retry later"
        )


class RequestError(FloorcastError):
    """The request is invalid, or not possible in the current state."""


class StateError(RequestError):
    """The request fits its model, but contradicts itself or what the server has."""
