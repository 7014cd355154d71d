"""Each user's subscriptions, indexed by connection, by user and by channel."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from client_sdk.contract import SubscriptionStatus
from server.core.market.topics import Topic, channel_for
from server.core.users import User, user_key

_TRANSITIONS: dict[SubscriptionStatus, frozenset[SubscriptionStatus]] = {
    SubscriptionStatus.PENDING: frozenset(
        (SubscriptionStatus.CONNECTED, SubscriptionStatus.ERROR, SubscriptionStatus.DISCONNECTED)
    ),
    SubscriptionStatus.CONNECTED: frozenset(
        (
            SubscriptionStatus.RECONNECTING,
            SubscriptionStatus.ERROR,
            SubscriptionStatus.DISCONNECTED,
        )
    ),
    SubscriptionStatus.RECONNECTING: frozenset(
        (
            SubscriptionStatus.PENDING,
            SubscriptionStatus.CONNECTED,
            SubscriptionStatus.ERROR,
            SubscriptionStatus.DISCONNECTED,
        )
    ),
    SubscriptionStatus.ERROR: frozenset(
        (SubscriptionStatus.PENDING, SubscriptionStatus.DISCONNECTED)
    ),
    SubscriptionStatus.DISCONNECTED: frozenset((SubscriptionStatus.PENDING,)),
}


class IllegalTransition(ValueError):
    """A subscription cannot change from the one status to the other."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One user's subscription to one topic, shared by the user's connections."""

    org: str
    user_id: str
    topic: Topic
    status: SubscriptionStatus = SubscriptionStatus.PENDING
    # The subscribed connections, each with the interval in milliseconds that it was granted.
    connections: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The user and the topic: `user:STREAM:SYMBOL`, or `user:STREAM`."""
        return f"{self.user_id}:{self.topic.name}"

    @property
    def channel(self) -> str:
        """The broker's key of the topic."""
        return channel_for(self.topic, self.org, self.user_id)

    def transition(self, status: SubscriptionStatus) -> None:
        """Change the status; a no-op if it is the same, raises `IllegalTransition`."""
        if status is self.status:
            return
        if status not in _TRANSITIONS[self.status]:
            raise IllegalTransition(f"{self.key}: {self.status} cannot become {status}")
        self.status = status


class Uses(Protocol):
    """Counts the connections that are subscribed to a topic, without the parked ones."""

    def add(self, topic: Topic, org: str, user_id: str) -> None:
        """One more connection is subscribed."""

    def remove(self, topic: Topic, org: str, user_id: str) -> None:
        """One connection less is subscribed."""


class Subscriptions:
    """The subscriptions of all users; the indexes always agree.

    A user's subscription outlives its connections until the user's last connection is removed. If
    a user has more than `max_idle` subscriptions without a connection, the oldest is removed.
    """

    def __init__(self, *, max_idle: int = 200, uses: Uses | None = None) -> None:
        self._max_idle = max_idle
        # None if nobody asks which topics are in use.
        self._uses = uses
        self._connections: dict[str, dict[str, Subscription]] = {}
        self._owners: dict[str, User] = {}
        self._parked: set[str] = set()
        self._users: dict[User, dict[str, None]] = {}
        self._subscriptions: dict[User, dict[str, Subscription]] = {}
        self._idle: dict[User, dict[str, None]] = {}
        self._channels: dict[str, dict[User, Subscription]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_connection(self, connection_id: str, org: str, user_id: str) -> None:
        """Add a connection of this user."""
        user = user_key(org, user_id)
        self._owners[connection_id] = user
        self._users.setdefault(user, {})[connection_id] = None

    def __contains__(self, connection_id: object) -> bool:
        return connection_id in self._owners

    def park(self, connection_id: str) -> None:
        """Keep the subscriptions of a lost connection, which may be resumed."""
        self._parked.add(connection_id)
        for subscription in self.of_connection(connection_id):
            if self._uses is not None:
                self._uses.remove(subscription.topic, subscription.org, subscription.user_id)
            if self._parked.issuperset(subscription.connections):
                subscription.transition(SubscriptionStatus.RECONNECTING)

    def resume(self, connection_id: str) -> None:
        """Reconnect the subscriptions of a parked connection."""
        self._parked.remove(connection_id)
        for subscription in self.of_connection(connection_id):
            subscription.transition(SubscriptionStatus.CONNECTED)
            if self._uses is not None:
                self._uses.add(subscription.topic, subscription.org, subscription.user_id)

    def remove_connection(self, connection_id: str) -> tuple[str, ...]:
        """Remove a connection; returns the channels it was subscribed to."""
        user = self._owners.pop(connection_id, None)
        if user is None:
            return ()
        channels = tuple(self._connections.get(connection_id, ()))
        for channel in channels:
            self._unsubscribe(connection_id, user, channel)
        self._parked.discard(connection_id)
        connections = self._users[user]
        del connections[connection_id]
        if not connections:
            del self._users[user]
            for channel in tuple(self._subscriptions.get(user, ())):
                self._remove(user, channel)
        return channels

    def request(self, connection_id: str, topic: Topic) -> Subscription:
        """Get or create the user's subscription, PENDING unless a connection has it already."""
        user = self._owners[connection_id]
        channel = channel_for(topic, *user)
        subscriptions = self._subscriptions.setdefault(user, {})
        subscription = subscriptions.get(channel)
        if subscription is None:
            subscription = subscriptions[channel] = Subscription(*user, topic)
            self._channels.setdefault(channel, {})[user] = subscription
            self._mark_idle(user, channel)
        elif not subscription.connections:
            subscription.transition(SubscriptionStatus.PENDING)
        return subscription

    def activate(self, connection_id: str, subscription: Subscription, interval_ms: int) -> None:
        """Subscribe the connection at this interval; sets the status to CONNECTED."""
        user, channel = self._owners[connection_id], subscription.channel
        if connection_id not in subscription.connections:
            self._count += 1
            self._connections.setdefault(connection_id, {})[channel] = subscription
            if self._uses is not None:
                self._uses.add(subscription.topic, *user)
        subscription.connections[connection_id] = interval_ms
        self._unmark_idle(user, channel)
        subscription.transition(SubscriptionStatus.CONNECTED)

    def fail(self, subscription: Subscription) -> None:
        """Set a PENDING subscription to ERROR; a no-op in any other status."""
        if subscription.status is SubscriptionStatus.PENDING:
            subscription.transition(SubscriptionStatus.ERROR)

    def unsubscribe(self, connection_id: str, topic: Topic) -> bool:
        """Unsubscribe the connection; False if it was not subscribed.

        The user's subscription ends with its last connection.
        """
        user = self._owners.get(connection_id)
        if user is None:
            return False
        channel = channel_for(topic, *user)
        was_subscribed = channel in self._connections.get(connection_id, ())
        if was_subscribed:
            self._unsubscribe(connection_id, user, channel)
        subscription = self._subscriptions.get(user, {}).get(channel)
        if subscription is not None and not subscription.connections:
            self._remove(user, channel)
        return was_subscribed

    def of_connection(self, connection_id: str) -> tuple[Subscription, ...]:
        """The subscriptions of one connection."""
        return tuple(self._connections.get(connection_id, {}).values())

    def count_of(self, connection_id: str) -> int:
        """The number of topics that one connection is subscribed to."""
        return len(self._connections.get(connection_id, ()))

    def is_subscribed(self, connection_id: str, channel: str) -> bool:
        """True if a connection is subscribed to a channel."""
        return channel in self._connections.get(connection_id, ())

    def of_user(self, org: str, user_id: str) -> tuple[Subscription, ...]:
        """The subscriptions of one user, those without a connection included."""
        return tuple(self._subscriptions.get((org, user_id), {}).values())

    def users_of(self, channel: str) -> tuple[User, ...]:
        """The users who are subscribed to a channel, as `(org, user)`."""
        return tuple(self._channels.get(channel, ()))

    def count_in_org(self, org: str, channel: str) -> int:
        """How many connections of an org are subscribed to a channel, without parked ones."""
        return sum(
            connection_id not in self._parked
            for (owner, _), each in self._channels.get(channel, {}).items()
            if owner == org
            for connection_id in each.connections
        )

    def public_topics(self) -> Iterator[Topic]:
        """The public topics that a connection is subscribed to, a parked one included."""
        for users in self._channels.values():
            for each in users.values():
                if each.topic.symbol is None:
                    break
                if each.connections:
                    yield each.topic
                    break

    def connections_of(self, channel: str) -> Iterator[str]:
        """The connections that are subscribed to a channel."""
        for subscription in self._channels.get(channel, {}).values():
            yield from subscription.connections

    def _unsubscribe(self, connection_id: str, user: User, channel: str) -> None:
        subscription = self._connections[connection_id].pop(channel)
        if not self._connections[connection_id]:
            del self._connections[connection_id]
        del subscription.connections[connection_id]
        self._count -= 1
        if self._uses is not None and connection_id not in self._parked:
            self._uses.remove(subscription.topic, *user)
        if not subscription.connections:
            subscription.transition(SubscriptionStatus.DISCONNECTED)
            self._mark_idle(user, channel)
        elif self._parked.issuperset(subscription.connections):
            # Only parked connections are left.
            subscription.transition(SubscriptionStatus.RECONNECTING)

    def _mark_idle(self, user: User, channel: str) -> None:
        """Keep a subscription without a connection; removes the user's oldest if too many."""
        idle = self._idle.setdefault(user, {})
        idle[channel] = None
        if len(idle) > self._max_idle:
            self._remove(user, next(iter(idle)))

    def _unmark_idle(self, user: User, channel: str) -> None:
        idle = self._idle.get(user)
        if idle is not None:
            idle.pop(channel, None)
            if not idle:
                del self._idle[user]

    def _remove(self, user: User, channel: str) -> None:
        self._unmark_idle(user, channel)
        subscriptions = self._subscriptions[user]
        del subscriptions[channel]
        if not subscriptions:
            del self._subscriptions[user]
        users = self._channels[channel]
        del users[user]
        if not users:
            del self._channels[channel]
