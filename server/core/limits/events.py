"""Limits what a connection, and a user over all connections, may send: events by their cost."""

from enum import Enum
from typing import NamedTuple

from server.core.limits.token_bucket import TokenBucket, milliseconds

# All connections of one user together may send as much as this many connections.
_USER_FACTOR = 4.0
# What an event costs beside 1: its text, and each topic or message that it asks for or brings.
_COST_OF_KILOBYTE = 1 / 16
_COST_OF_ITEM = 1 / 50


def event_cost(characters: int) -> float:
    """The cost of an event with so much text; its topics or messages cost extra."""
    return 1.0 + (characters // 1024) * _COST_OF_KILOBYTE


def items_cost(count: int) -> float:
    """What the topics or messages of one request cost beside the request."""
    return (count - 1) * _COST_OF_ITEM


class RateOutcome(Enum):
    """What to do with an event."""

    GRANTED = "granted"
    REFUSED = "refused"
    # Refused so often that the connection should be closed.
    FLOODING = "flooding"


class RateDecision(NamedTuple):
    """An outcome, and for a refusal the time to wait."""

    outcome: RateOutcome
    retry_after_ms: int = 0


_GRANTED = RateDecision(RateOutcome.GRANTED)


class _Sender:
    __slots__ = ("bucket", "refusals", "user", "user_bucket")

    def __init__(
        self,
        bucket: TokenBucket,
        user_bucket: TokenBucket,
        refusals: TokenBucket,
        user: tuple[str, str],
    ) -> None:
        self.bucket = bucket
        self.user_bucket = user_bucket
        self.refusals = refusals
        self.user = user


class EventLimits:
    """The event rates of all connections and users; a rate of 0 means no limit."""

    def __init__(self, *, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = max(1.0, burst)
        self._senders: dict[str, _Sender] = {}
        self._users: dict[tuple[str, str], tuple[TokenBucket, set[str]]] = {}

    def open(self, connection_id: str, org: str, user_id: str, now: float) -> None:
        """Start counting a connection; opening it again resets it, for this user."""
        if self._per_second <= 0:
            return
        self.close(connection_id)
        user = (org, user_id)
        # Refusals have a bucket of their own: a client that is refused twice the burst without a
        # pause is flooding, not merely a little too fast.
        refusals = TokenBucket(self._per_second, 2 * self._burst, now)
        bucket = TokenBucket(self._per_second, self._burst, now)
        if user not in self._users:
            user_bucket = TokenBucket(
                _USER_FACTOR * self._per_second, _USER_FACTOR * self._burst, now
            )
            self._users[user] = (user_bucket, set())
        user_bucket, connections = self._users[user]
        connections.add(connection_id)
        self._senders[connection_id] = _Sender(bucket, user_bucket, refusals, user)

    def close(self, connection_id: str) -> None:
        """Stop counting a connection; a no-op for an unknown one."""
        sender = self._senders.pop(connection_id, None)
        if sender is not None:
            connections = self._users[sender.user][1]
            connections.discard(connection_id)
            if not connections:
                del self._users[sender.user]

    def check(self, connection_id: str, now: float, cost: float = 1.0) -> RateDecision:
        """Count one event; an unknown connection is always granted."""
        sender = self._senders.get(connection_id)
        if sender is None:
            return _GRANTED
        # One event always fits into a full bucket, whatever it costs.
        if cost > self._burst:
            cost = self._burst
        wait = sender.bucket.take(now, cost)
        if not wait:
            wait = sender.user_bucket.take(now, cost)
            if not wait:
                return _GRANTED
            sender.bucket.refund(cost)
        if sender.refusals.take(now):
            return RateDecision(RateOutcome.FLOODING)
        return RateDecision(RateOutcome.REFUSED, milliseconds(wait))

    def last_event_at(self, connection_id: str) -> float | None:
        """When a connection last sent an event, or was opened; None if it is not counted."""
        sender = self._senders.get(connection_id)
        return None if sender is None else sender.bucket.updated_at

    def charge_items(self, connection_id: str, count: int) -> None:
        """Charge for the topics or messages of a granted event; later events may have to wait."""
        sender = self._senders.get(connection_id)
        if sender is not None:
            cost = items_cost(count)
            sender.bucket.charge(cost)
            sender.user_bucket.charge(cost)

    def tracked_count(self) -> int:
        """The number of connections and users in memory."""
        return len(self._senders) + len(self._users)
