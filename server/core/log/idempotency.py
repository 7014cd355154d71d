"""Remembers recently published message ids, so that a retry creates no second message."""

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError
from server.core.limits.shares import SERVER, UNLIMITED, Owner, Quota, ShareLimits, Shares
from server.core.log.entries import Receipt


@dataclass(frozen=True, slots=True)
class Claim:
    """A publisher's id for a message, and a digest of its content."""

    key: str
    digest: bytes
    owner: Owner = SERVER


def hashed_key(digest: str) -> str:
    """The key of a claim of which only the digest of its key is known, as Redis has it."""
    return f"#{digest}"


class IdempotencyWindow:
    """The claims of the last `window_seconds`, bounded in total, by org and by publisher.

    At a limit the oldest id of the largest holder is free again: one org never takes another's.
    """

    def __init__(
        self,
        *,
        max_claims: int,
        window_seconds: float,
        max_per_org: int = UNLIMITED,
        max_per_publisher: int = UNLIMITED,
    ) -> None:
        self._window_seconds = window_seconds
        self._has_hashed = False
        # With their receipt and time, oldest first. An OrderedDict, because removing the first key
        # is slow in a dict.
        self._claims: OrderedDict[str, tuple[Claim, Receipt, float]] = OrderedDict()
        self._shares: Shares[str] = Shares(
            ShareLimits(Quota(max_claims), Quota(max_per_org), Quota(max_per_publisher))
        )

    def __len__(self) -> int:
        return len(self._claims)

    def find(self, claim: Claim, now: float) -> Receipt | None:
        """The receipt of the same message; None if its id is new.

        Raises `RequestError` if another message has this id.
        """
        self._expire(now)
        known = self._claims.get(claim.key)
        if known is None and self._has_hashed:
            digest = blake2b(claim.key.encode(), digest_size=16).hexdigest()
            known = self._claims.get(hashed_key(digest))
        if known is None:
            return None
        published, receipt, _ = known
        if published.digest != claim.digest:
            raise RequestError(
                ErrorCode.PUBLISH_CONFLICT, "another message was published under this id"
            )
        return receipt

    def store(self, claim: Claim, receipt: Receipt, now: float) -> None:
        """Remember an accepted message; a no-op for a known id."""
        self._expire(now)
        if claim.key in self._claims:
            return
        self._claims[claim.key] = (claim, receipt, now)
        self._has_hashed = self._has_hashed or claim.key.startswith("#")
        self._shares.put(claim.owner, claim.key, 1)
        surplus = self._shares.surplus(claim.owner)
        if surplus is not None:
            self._drop(next(iter(surplus.names)))

    def _expire(self, now: float) -> None:
        claims = self._claims
        while claims:
            key = next(iter(claims))
            if claims[key][2] + self._window_seconds > now:
                break
            self._drop(key)

    def _drop(self, key: str) -> None:
        claim, _, _ = self._claims.pop(key)
        self._shares.remove(claim.owner, key)
