"""The verified user of a connection, and what it is authorized to do."""

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from types import MappingProxyType

from client_sdk.contract import ErrorCode, Scope
from server.core.errors import AccessError
from server.core.users import user_key

# Shared, so that a principal without claims costs nothing.
NO_CLAIMS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified user. The globs `symbols`, `sessions` and `users` are unrestricted if None."""

    user_id: str
    org: str
    scopes: frozenset[str]
    expires_at: float
    symbols: tuple[str, ...] | None = None
    sessions: tuple[str, ...] | None = None
    anonymous: bool = False
    # The owners of private topics that the token may publish to.
    users: tuple[str, ...] | None = None
    # All claims of the token, if the application has rules, guards or namespaces that may read
    # them; else empty. Not for logs.
    claims: Mapping[str, object] = field(
        default_factory=lambda: NO_CLAIMS, repr=False, compare=False
    )
    # The claims `iat` and `jti`, by which a token can be revoked.
    issued_at: float = 0.0
    token_id: str | None = None

    @property
    def user(self) -> tuple[str, str]:
        """The org and the user id, which together identify the user."""
        return user_key(self.org, self.user_id)

    def has_rights_of(self, other: "Principal") -> bool:
        """Whether this is the same user with the same rights; the expiry may differ."""
        return (self.user, self.scopes, self.symbols, self.sessions, self.users) == (
            other.user,
            other.scopes,
            other.symbols,
            other.sessions,
            other.users,
        )

    def allows(self, scope: Scope) -> bool:
        """Whether the token has this scope; no scope implies another, not even `admin`."""
        return scope.value in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise `AccessError` if the token does not have this scope."""
        if scope.value not in self.scopes:
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token needs the scope {scope.value}")

    def may_use_symbol(self, symbol: str) -> bool:
        """Whether the token's `symbols` match this symbol."""
        return self.symbols is None or _matches(self.symbols, symbol)

    def may_join(self, session_id: str) -> bool:
        """Whether the token's `sessions` match this session."""
        return self.sessions is None or _matches(self.sessions, session_id)

    def may_publish_to(self, user_id: str) -> bool:
        """Whether the token allows publishing to this user's private topics.

        A token narrowed to `symbols` reaches other users only if it names them in `users`.
        """
        if user_id == self.user_id:
            return True
        if self.users is None:
            return self.symbols is None
        return _matches(self.users, user_id)


def anonymous() -> Principal:
    """A principal without a token, for servers whose market data is public.

    Each has its own user id, so that limits per user are not shared by all of them.
    """
    return Principal(
        user_id=f"anonymous-{secrets.token_hex(8)}",
        org="default",
        scopes=frozenset({Scope.MARKET_READ.value}),
        expires_at=math.inf,
        anonymous=True,
    )


def _matches(globs: tuple[str, ...], name: str) -> bool:
    return any(_compiled(glob).fullmatch(name) is not None for glob in globs)


# `translate` makes every `*` but the last atomic: patterns of many stars cannot backtrack.
@lru_cache(maxsize=4096)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))
