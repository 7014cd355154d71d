"""Who a token says its bearer is, and what that allows."""

import math
import re
import secrets
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from client_sdk.contract import ErrorCode, Scope
from server.core.errors import AccessError


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified user. `None` for the globs means that nothing is narrowed."""

    user_id: str
    org: str
    scopes: frozenset[str]
    expires_at: float
    symbols: tuple[str, ...] | None = None
    sessions: tuple[str, ...] | None = None
    anonymous: bool = False

    @property
    def user(self) -> tuple[str, str]:
        """The org and the user, which only together are somebody."""
        return self.org, self.user_id

    def allows(self, scope: Scope) -> bool:
        """Whether the token has this scope; none implies another, `admin` neither."""
        return scope.value in self.scopes

    def require(self, scope: Scope) -> None:
        """Refuse where the scope is missing."""
        if scope.value not in self.scopes:
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"this needs the scope {scope.value}")

    def may_use_symbol(self, symbol: str) -> bool:
        """Whether the token's `symbols` let this one through."""
        return self.symbols is None or _matches(self.symbols, symbol)

    def may_join(self, session_id: str) -> bool:
        """Whether the token's `sessions` let this one through."""
        return self.sessions is None or _matches(self.sessions, session_id)


def anonymous() -> Principal:
    """Somebody without a token, where market data is open to everyone.

    Each is a user of their own: what counts for one user must not be shared by all of them.
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


# `translate` makes every `*` but the last atomic: a pattern of many stars cannot blow up.
@lru_cache(maxsize=4096)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))
