"""How long subjects stay occupied, what is queued for the hooks, and what is kept of users."""

from dataclasses import dataclass

from client_sdk.contract import HookType
from server.core.limits.shares import NO_SHARES, ShareLimits


@dataclass(frozen=True, slots=True)
class OccupancyConfig:
    """The config of occupancy, and of the queue of its events."""

    grace_seconds: float = 10.0
    # The types that a receiver wants; without a receiver none are queued.
    queued: frozenset[HookType] = frozenset()
    max_events: int = 100_000
    keep_seconds: float = 3600.0
    wills: ShareLimits = NO_SHARES
    # How long the time at which a user was last connected is kept, and of how many users.
    seen_seconds: float = 2_592_000.0
    seen_per_org: int = 50_000
    seen_total: int = 500_000
