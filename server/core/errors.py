"""The one tree of errors that the server raises for its users' sake."""

from collections.abc import Mapping

from client_sdk.contract import ErrorCode


class FloorcastError(Exception):
    """A refusal with a code; the edge turns it into an error body."""

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

    def body(self) -> dict[str, object]:
        """The error as the contract shows it to a client."""
        body: dict[str, object] = {"code": self.code.value, "message": self.message}
        if self.retry_after_ms is not None:
            body["retry_after_ms"] = self.retry_after_ms
        if self.details is not None:
            body["details"] = dict(self.details)
        return body


class AccessError(FloorcastError):
    """Who you are, or what you may do, does not allow this."""


class LimitError(FloorcastError):
    """A limit was reached."""


class WriteConflict(FloorcastError):
    """Somebody else has published in the meantime: the head is not where it was expected."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.SERVER_OVERLOADED, "too many publish to it at the same time")


class RequestError(FloorcastError):
    """The request does not make sense as it stands."""
