"""The limits of one address and of one user, and the errors for exceeding them."""

from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError

# An address may connect in bursts of this many seconds' worth: a page opens several sockets.
_BURST_SECONDS = 2.0

# What is counted: an address, or a user as `(org, user_id)`.
LimitKey = str | tuple[str, str]


def connect_burst(per_second: float) -> float:
    """How many connection attempts may come at once at this rate."""
    return max(1.0, per_second * _BURST_SECONDS)


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """The limits of one address or one user; 0 means no limit."""

    connections: int
    attempts_per_second: float = 0.0

    @property
    def burst(self) -> float:
        """How many connection attempts may come at once."""
        return connect_burst(self.attempts_per_second)

    @property
    def is_unlimited(self) -> bool:
        """True if nothing needs to be counted."""
        return not (self.connections or self.attempts_per_second)


@dataclass(frozen=True, slots=True)
class LimitKeys:
    """The limit for each kind of key: the same for every address, and for every user."""

    address: ConnectionLimit
    user: ConnectionLimit

    def limit_for(self, key: LimitKey) -> ConnectionLimit:
        """The limit that applies to this key."""
        return self.address if isinstance(key, str) else self.user


def too_many_connections(key: LimitKey, limit: int) -> LimitError:
    """The error for an address or a user that has reached its limit."""
    subject = "an address" if isinstance(key, str) else "a user"
    return LimitError(
        ErrorCode.LIMIT_CONNECTIONS,
        f"{subject} may have {limit} connections",
        details={"limit": limit},
    )


def connect_rate_exceeded(wait_ms: int) -> LimitError:
    """The error for an address that connects too often."""
    return LimitError(
        ErrorCode.LIMIT_RATE,
        "too many connection attempts from this address: retry later",
        retry_after_ms=wait_ms,
    )
