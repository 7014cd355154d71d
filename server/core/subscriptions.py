"""Who is subscribed to what, indexed both ways."""

from collections.abc import Collection

_NOBODY: dict[str, None] = {}


class Subscriptions:
    """Subscribers of channels and channels of subscribers; the two always agree.

    No operation but `channels` costs more for what others have. A subscription is only a pair as
    yet: its pace and its last position come with the delivery that needs them.
    """

    def __init__(self) -> None:
        # Dicts as ordered sets: who came first is served first, on every run alike.
        self._subscribers: dict[str, dict[str, None]] = {}
        self._channels: dict[str, dict[str, None]] = {}
        self._count = 0

    def add(self, subscriber: str, channel: str) -> None:
        """Subscribe; once is enough."""
        channels = self._channels.setdefault(subscriber, {})
        if channel in channels:
            return
        channels[channel] = None
        self._subscribers.setdefault(channel, {})[subscriber] = None
        self._count += 1

    def remove(self, subscriber: str, channel: str) -> bool:
        """Unsubscribe; False where there was nothing to end."""
        channels = self._channels.get(subscriber)
        if channels is None or channel not in channels:
            return False
        self._count -= 1
        del channels[channel]
        if not channels:
            del self._channels[subscriber]
        subscribers = self._subscribers[channel]
        del subscribers[subscriber]
        if not subscribers:
            del self._subscribers[channel]
        return True

    def remove_all(self, subscriber: str) -> tuple[str, ...]:
        """End everything of one subscriber; the channels that it had."""
        channels = self.channels_of(subscriber)
        for channel in channels:
            self.remove(subscriber, channel)
        return channels

    def subscribers(self, channel: str) -> Collection[str]:
        """Who listens now. This is the index itself, not a copy, for the fan-out's sake.

        Walk it and let it go: subscribing meanwhile is an error, and a channel whose last
        subscriber went is another object when somebody comes back.
        """
        return self._subscribers.get(channel, _NOBODY).keys()

    def channels_of(self, subscriber: str) -> tuple[str, ...]:
        """What one listens to."""
        return tuple(self._channels.get(subscriber, _NOBODY))

    def count_of(self, subscriber: str) -> int:
        """How many channels one listens to."""
        return len(self._channels.get(subscriber, _NOBODY))

    def listens(self, subscriber: str, channel: str) -> bool:
        """Whether one listens to this channel."""
        return channel in self._channels.get(subscriber, _NOBODY)

    def channels(self) -> tuple[str, ...]:
        """The channels that anybody listens to."""
        return tuple(self._subscribers)

    def __len__(self) -> int:
        return self._count
