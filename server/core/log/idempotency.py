"""Remembers what was published under an id, so that a retry makes no second message."""

from collections import deque
from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError
from server.core.log.entries import Receipt


@dataclass(frozen=True, slots=True)
class Claim:
    """A publisher's id for a message, and what the message says, as a digest."""

    key: str
    digest: bytes


class IdempotencyWindow:
    """Claims of the last while, bounded in number: past either the id is free again."""

    def __init__(self, *, max_claims: int, seconds: float) -> None:
        self._max_claims = max_claims
        self._seconds = seconds
        self._kept: dict[str, tuple[bytes, Receipt]] = {}
        self._ages: deque[tuple[float, str]] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, claim: Claim, now: float) -> Receipt | None:
        """Where the same message went before; another message under the same id is refused."""
        self._expire(now)
        kept = self._kept.get(claim.key)
        if kept is None:
            return None
        digest, receipt = kept
        if digest != claim.digest:
            raise RequestError(
                ErrorCode.PUBLISH_CONFLICT, "another message was published under this id"
            )
        return receipt

    def keep(self, claim: Claim, receipt: Receipt, now: float) -> None:
        """The message has its place."""
        self._expire(now)
        if claim.key in self._kept:
            return
        if len(self._kept) >= self._max_claims:
            self._drop_oldest()
        self._kept[claim.key] = (claim.digest, receipt)
        self._ages.append((now, claim.key))

    def _expire(self, now: float) -> None:
        while self._ages and self._ages[0][0] + self._seconds <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, key = self._ages.popleft()
        del self._kept[key]
