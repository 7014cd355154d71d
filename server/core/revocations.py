"""The revoked tokens: by their id, or all of a user that were issued before a time."""

import heapq
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import orjson

from client_sdk.contract import ErrorCode
from server.core.errors import AccessError


class RevocableToken(Protocol):
    """What a revocation is compared with: the facts of a token."""

    @property
    def org(self) -> str: ...

    @property
    def user_id(self) -> str: ...

    @property
    def issued_at(self) -> float:
        """In seconds since 1970; 0 if it is unknown: such a token is older than any revocation."""

    @property
    def token_id(self) -> str | None:
        """The claim `jti`."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Refuses one token of an org, or all tokens of a user, if issued before a time."""

    org: str
    user_id: str | None
    token_id: str | None
    # In seconds since 1970, as in tokens; None for any time.
    before: float | None
    # When the tokens have ended by themselves.
    until: float

    @property
    def id(self) -> str:
        """The same for the same user or token: a new revocation replaces the earlier one."""
        subject = orjson.dumps([self.org, self.user_id, self.token_id])
        return blake2b(subject, digest_size=8).hexdigest()

    def matches(self, token: RevocableToken) -> bool:
        """Whether it refuses this token."""
        return (
            token.org == self.org
            and (self.user_id is None or token.user_id == self.user_id)
            and (self.token_id is None or token.token_id == self.token_id)
            and (self.before is None or token.issued_at < self.before)
        )


class Revocations:
    """The revocations in force on this node; a check costs two look-ups."""

    def __init__(self) -> None:
        self._by_id: dict[str, Revocation] = {}
        self._of_users: dict[tuple[str, str], Revocation] = {}
        self._of_tokens: dict[tuple[str, str], Revocation] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def check(self, token: RevocableToken) -> None:
        """Raise `AccessError` if the token is revoked."""
        if not self._by_id:
            return
        found = self._of_users.get((token.org, token.user_id))
        if found is None or not found.matches(token):
            found = self._of_tokens.get((token.org, token.token_id or ""))
            if found is None or not found.matches(token):
                return
        raise token_revoked()

    def get(self, org: str, revocation_id: str) -> Revocation | None:
        """A revocation of an org; None if there is none."""
        found = self._by_id.get(revocation_id)
        return found if found is not None and found.org == org else None

    def count_of(self, org: str) -> int:
        """How many revocations an org has."""
        return self._counts.get(org, 0)

    def page(self, org: str, after: str, limit: int) -> list[Revocation]:
        """The revocations of an org whose ids follow `after`, sorted by id."""
        return heapq.nsmallest(
            limit,
            (each for each in self._by_id.values() if each.org == org and each.id > after),
            key=lambda each: each.id,
        )

    def put(self, revocation: Revocation) -> None:
        """Put a revocation in force, in place of an earlier one with its id."""
        self.remove(revocation.id)
        self._by_id[revocation.id] = revocation
        self._counts[revocation.org] = self.count_of(revocation.org) + 1
        if revocation.user_id is not None:
            self._of_users[revocation.org, revocation.user_id] = revocation
        elif revocation.token_id is not None:
            self._of_tokens[revocation.org, revocation.token_id] = revocation

    def remove(self, revocation_id: str) -> None:
        """Forget a revocation; a no-op for an unknown one."""
        revocation = self._by_id.pop(revocation_id, None)
        if revocation is None:
            return
        org = revocation.org
        self._counts[org] -= 1
        if not self._counts[org]:
            del self._counts[org]
        if revocation.user_id is not None:
            del self._of_users[org, revocation.user_id]
        elif revocation.token_id is not None:
            del self._of_tokens[org, revocation.token_id]


def token_revoked() -> AccessError:
    """The error for a revoked token."""
    return AccessError(ErrorCode.AUTH_REVOKED, "the token was revoked: sign in again")
