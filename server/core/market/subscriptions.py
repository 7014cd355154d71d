"""Who is subscribed to what: each user's subscriptions, found from either side."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from client_sdk.contract import SubscriptionStatus
from server.core.market.topics import Topic, channel_for

User = tuple[str, str]

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
    """A subscription cannot get from the one state to the other."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One user's subscription of one topic, whichever of their connections listen to it."""

    org: str
    user_id: str
    topic: Topic
    status: SubscriptionStatus = SubscriptionStatus.PENDING
    # The connections that listen, each with the pace that it was granted.
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
        """Go to another state; staying is always possible."""
        if status is self.status:
            return
        if status not in _TRANSITIONS[self.status]:
            raise IllegalTransition(f"{self.key}: {self.status} cannot become {status}")
        self.status = status


class Subscriptions:
    """Users and their subscriptions, channels and their users; all indexes always agree.

    A user's subscription outlives the connection that made it for as long as the user has
    another connection; then nothing is left of either. What has no listener is forgotten,
    the oldest first, where one user collects more than `max_idle` of it.
    """

    def __init__(self, *, max_idle: int = 200) -> None:
        self._max_idle = max_idle
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
        """A connection of this user is there."""
        user = (org, user_id)
        self._owners[connection_id] = user
        self._users.setdefault(user, {})[connection_id] = None

    def __contains__(self, connection_id: object) -> bool:
        return connection_id in self._owners

    def park(self, connection_id: str) -> None:
        """The connection was cut off and may be back; its user's subscriptions wait for it."""
        self._parked.add(connection_id)
        for subscription in self.of_connection(connection_id):
            if self._parked.issuperset(subscription.connections):
                subscription.transition(SubscriptionStatus.RECONNECTING)

    def resume(self, connection_id: str) -> None:
        """It is back, and listens to what it listened to."""
        self._parked.remove(connection_id)
        for subscription in self.of_connection(connection_id):
            subscription.transition(SubscriptionStatus.CONNECTED)

    def remove_connection(self, connection_id: str) -> tuple[str, ...]:
        """The connection has gone; the channels that it listened to."""
        user = self._owners.pop(connection_id, None)
        if user is None:
            return ()
        self._parked.discard(connection_id)
        channels = tuple(self._connections.get(connection_id, ()))
        for channel in channels:
            self._unsubscribe(connection_id, user, channel)
        connections = self._users[user]
        del connections[connection_id]
        if not connections:
            del self._users[user]
            for channel in tuple(self._subscriptions.get(user, ())):
                self._remove(user, channel)
        return channels

    def request(self, connection_id: str, topic: Topic) -> Subscription:
        """The user wants this topic; what they have of it already stays as it is."""
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
        """The connection hears the topic from now on, at this pace."""
        user, channel = self._owners[connection_id], subscription.channel
        if connection_id not in subscription.connections:
            self._count += 1
            self._connections.setdefault(connection_id, {})[channel] = subscription
        subscription.connections[connection_id] = interval_ms
        self._unmark_idle(user, channel)
        subscription.transition(SubscriptionStatus.CONNECTED)

    def fail(self, subscription: Subscription) -> None:
        """It came to nothing; who listens already is not touched, nor what was ended meanwhile."""
        if subscription.status is SubscriptionStatus.PENDING:
            subscription.transition(SubscriptionStatus.ERROR)

    def unsubscribe(self, connection_id: str, topic: Topic) -> bool:
        """The connection listens no more; False where it never did.

        When it was the user's last listener, the user's subscription ends with it.
        """
        user = self._owners.get(connection_id)
        if user is None:
            return False
        channel = channel_for(topic, *user)
        listened = channel in self._connections.get(connection_id, ())
        if listened:
            self._unsubscribe(connection_id, user, channel)
        subscription = self._subscriptions.get(user, {}).get(channel)
        if subscription is not None and not subscription.connections:
            self._remove(user, channel)
        return listened

    def of_connection(self, connection_id: str) -> tuple[Subscription, ...]:
        """What one connection listens to."""
        return tuple(self._connections.get(connection_id, {}).values())

    def count_of(self, connection_id: str) -> int:
        """How many topics one connection listens to."""
        return len(self._connections.get(connection_id, ()))

    def is_subscribed(self, connection_id: str, channel: str) -> bool:
        """Whether one connection listens to this channel."""
        return channel in self._connections.get(connection_id, ())

    def of_user(self, org: str, user_id: str) -> tuple[Subscription, ...]:
        """Every subscription of one user."""
        return tuple(self._subscriptions.get((org, user_id), {}).values())

    def users_of(self, channel: str) -> tuple[User, ...]:
        """The users who are subscribed to a channel, as `(org, user)`."""
        return tuple(self._channels.get(channel, ()))

    def connections_of(self, channel: str) -> Iterator[str]:
        """The connections that listen to a channel."""
        for subscription in self._channels.get(channel, {}).values():
            yield from subscription.connections

    def _unsubscribe(self, connection_id: str, user: User, channel: str) -> None:
        subscription = self._connections[connection_id].pop(channel)
        if not self._connections[connection_id]:
            del self._connections[connection_id]
        del subscription.connections[connection_id]
        self._count -= 1
        if not subscription.connections:
            subscription.transition(SubscriptionStatus.DISCONNECTED)
            self._mark_idle(user, channel)
        elif self._parked.issuperset(subscription.connections):
            # Nobody who listens to it is here.
            subscription.transition(SubscriptionStatus.RECONNECTING)

    def _mark_idle(self, user: User, channel: str) -> None:
        """Nobody listens: it is kept, but not for ever if the user makes many of these."""
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
