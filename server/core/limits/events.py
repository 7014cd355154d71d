"""How many events a connection, and a user with all connections, may send; 0 means no limit."""

from enum import Enum
from typing import NamedTuple

from server.core.limits.token_bucket import TokenBucket, milliseconds

# One user's devices together may send as much as so many connections.
_USER_SHARE = 4.0


class Verdict(Enum):
    """What becomes of an event."""

    GRANTED = "granted"
    REFUSED = "refused"
    HAMMERING = "hammering"


class Ruling(NamedTuple):
    """A verdict, and for a refusal how long to wait."""

    verdict: Verdict
    retry_after_ms: int = 0


_GRANTED = Ruling(Verdict.GRANTED)


class _Sender:
    __slots__ = ("bucket", "patience", "shared", "user")

    def __init__(
        self,
        bucket: TokenBucket,
        shared: TokenBucket,
        patience: TokenBucket,
        user: tuple[str, str],
    ) -> None:
        self.bucket = bucket
        self.shared = shared
        self.patience = patience
        self.user = user


class EventLimits:
    """How many events a connection, and a user with all connections, may send."""

    def __init__(self, *, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = max(1.0, burst)
        self._senders: dict[str, _Sender] = {}
        self._users: dict[tuple[str, str], tuple[TokenBucket, set[str]]] = {}

    def open(self, connection_id: str, org: str, user_id: str, now: float) -> None:
        """A connection may send from now on; opened again it starts anew, for that user."""
        if self._per_second <= 0:
            return
        self.close(connection_id)
        user = (org, user_id)
        # Refusals are counted like events: who is refused twice the burst without a pause
        # is not a client that was a little too quick.
        patience = TokenBucket(self._per_second, 2 * self._burst, now)
        bucket = TokenBucket(self._per_second, self._burst, now)
        if user not in self._users:
            shared = TokenBucket(_USER_SHARE * self._per_second, _USER_SHARE * self._burst, now)
            self._users[user] = (shared, set())
        shared, connections = self._users[user]
        connections.add(connection_id)
        self._senders[connection_id] = _Sender(bucket, shared, patience, user)

    def close(self, connection_id: str) -> None:
        """The connection has ended; unknown ones are nothing."""
        sender = self._senders.pop(connection_id, None)
        if sender is not None:
            connections = self._users[sender.user][1]
            connections.discard(connection_id)
            if not connections:
                del self._users[sender.user]

    def check(self, connection_id: str, now: float) -> Ruling:
        """Count one event."""
        sender = self._senders.get(connection_id)
        if sender is None:
            return _GRANTED
        wait = sender.bucket.take(now)
        if not wait:
            wait = sender.shared.take(now)
            if not wait:
                return _GRANTED
            sender.bucket.give_back()
        if sender.patience.take(now):
            return Ruling(Verdict.HAMMERING)
        return Ruling(Verdict.REFUSED, milliseconds(wait))

    def tracked(self) -> int:
        """How many connections and users are remembered."""
        return len(self._senders) + len(self._users)
