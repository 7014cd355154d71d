"""Groups the subscriptions of one channel that are served at one interval."""

from server.core.log.backlog import Lag
from server.core.recovery.write_index import BatchIndex
from server.delivery.clients import Subscription
from server.ports import Link

_MAX_BATCHES = 64

Group = dict[Link, Subscription]


class Tier:
    """The subscriptions of one interval; synced ones share position and encoded bytes."""

    __slots__ = ("_unsynced", "batches", "groups", "interval_ms", "last_seq", "oldest_ms")

    def __init__(self, interval_ms: int, last_seq: int) -> None:
        self.interval_ms = interval_ms
        # The newest entry sent to all synced clients, and the time of the first one not sent.
        self.last_seq = last_seq
        self.oldest_ms: int | None = None
        # Synced ones: without offsets, and with.
        self.groups: tuple[Group, Group] = ({}, {})
        # Those with a lag: new subscribers and slow consumers.
        self._unsynced: dict[Subscription, None] = {}
        self.batches = BatchIndex(max_batches=_MAX_BATCHES)

    def __len__(self) -> int:
        return len(self.groups[0]) + len(self.groups[1]) + len(self._unsynced)

    def unsynced(self) -> tuple[Subscription, ...]:
        """The subscriptions that are not at the tier's position."""
        return tuple(self._unsynced)

    def all(self) -> list[Subscription]:
        """All subscriptions, as a copy."""
        return [*self.groups[0].values(), *self.groups[1].values(), *self._unsynced]

    def add(self, subscription: Subscription) -> None:
        """Add a subscription, at the tier's position if it has no lag."""
        if subscription.lag is None:
            client = subscription.client
            self.groups[client.is_numbered][client.link] = subscription
        else:
            self._unsynced[subscription] = None

    def remove(self, subscription: Subscription) -> Lag:
        """Remove a subscription; returns its lag behind the newest entry."""
        lag = subscription.leave()
        if lag is None:
            client = subscription.client
            del self.groups[client.is_numbered][client.link]
            return Lag(self.last_seq, self.oldest_ms)
        del self._unsynced[subscription]
        return lag

    def miss(self, ts_ms: int) -> None:
        """Record the time of an entry that is yet to be sent."""
        if self.oldest_ms is None:
            self.oldest_ms = ts_ms

    def record_batch(self, serial: int, seq: int) -> None:
        """Index a write of merged updates that reaches up to this entry."""
        self.batches.append(serial, seq)

    def advance(self, seq: int) -> None:
        """Record that the synced clients have all entries up to this one."""
        self.last_seq, self.oldest_ms = seq, None
