"""How long subjects stay occupied, what is queued for the hooks, and the shares of wills."""

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
