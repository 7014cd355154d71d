"""Remembers recently published message ids, so that a retry creates no second message."""

from collections import deque
from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError
from server.core.log.entries import Receipt


@dataclass(frozen=True, slots=True)
class Claim:
    """A publisher's id for a message, and a digest of its content."""

    key: str
    digest: bytes


class IdempotencyWindow:
    """The claims of the last `window_seconds`, at most `max_claims`; older ids are free again."""

    def __init__(self, *, max_claims: int, window_seconds: float) -> None:
        self._max_claims = max_claims
        self._window_seconds = window_seconds
        self._claims: dict[str, tuple[bytes, Receipt]] = {}
        self._expiry_order: deque[tuple[float, str]] = deque()

    def __len__(self) -> int:
        return len(self._claims)

    def find(self, claim: Claim, now: float) -> Receipt | None:
        """The receipt of the same message; None if its id is new.

        Raises `RequestError` if another message has this id.
        """
        self._expire(now)
        known = self._claims.get(claim.key)
        if known is None:
            return None
        digest, receipt = known
        if digest != claim.digest:
            raise RequestError(
                ErrorCode.PUBLISH_CONFLICT, "another message was published under this id"
            )
        return receipt

    def store(self, claim: Claim, receipt: Receipt, now: float) -> None:
        """Remember an accepted message; a no-op for a known id."""
        self._expire(now)
        if claim.key in self._claims:
            return
        if len(self._claims) >= self._max_claims:
            self._drop_oldest()
        self._claims[claim.key] = (claim.digest, receipt)
        self._expiry_order.append((now, claim.key))

    def _expire(self, now: float) -> None:
        while self._expiry_order and self._expiry_order[0][0] + self._window_seconds <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, key = self._expiry_order.popleft()
        del self._claims[key]
