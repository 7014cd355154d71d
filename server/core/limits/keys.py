"""What one address and one user may have, and what is said to who wants more."""

from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError

# An address may connect in bursts of so many seconds' worth: a page opens several sockets.
_BURST_SECONDS = 2.0

# Who is counted: an address, or an org and its user.
LimitKey = str | tuple[str, str]


def connect_burst(per_second: float) -> float:
    """How many attempts to connect may come together."""
    return max(1.0, per_second * _BURST_SECONDS)


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """What one address or one user may have; 0 means no limit."""

    connections: int
    attempts_per_second: float = 0.0

    @property
    def burst(self) -> float:
        """How many attempts may come together."""
        return connect_burst(self.attempts_per_second)

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing needs to be counted."""
        return not (self.connections or self.attempts_per_second)


@dataclass(frozen=True, slots=True)
class LimitKeys:
    """What each address may have, and each user."""

    address: ConnectionLimit
    user: ConnectionLimit

    def limit_for(self, key: LimitKey) -> ConnectionLimit:
        """What this one may have."""
        return self.address if isinstance(key, str) else self.user


def too_many_connections(key: LimitKey, limit: int) -> LimitError:
    """Why there is no place for another connection."""
    whose = "an address" if isinstance(key, str) else "a user"
    return LimitError(
        ErrorCode.LIMIT_CONNECTIONS,
        f"{whose} may have {limit} connections",
        details={"limit": limit},
    )


def connect_rate_exceeded(wait_ms: int) -> LimitError:
    """Why an address may not connect now."""
    return LimitError(
        ErrorCode.LIMIT_RATE, "this address connects too often", retry_after_ms=wait_ms
    )
