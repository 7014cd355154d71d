"""Who is subscribed to what, indexed both ways."""

from collections.abc import Collection

_NOBODY: dict[str, None] = {}


class Subscriptions:
    """Subscribers of channels and channels of subscribers; the two always agree."""

    def __init__(self) -> None:
        # Dicts as ordered sets: who came first is served first, on every run alike.
        self._subscribers: dict[str, dict[str, None]] = {}
        self._channels: dict[str, dict[str, None]] = {}

    def add(self, subscriber: str, channel: str) -> None:
        """Subscribe; once is enough."""
        self._subscribers.setdefault(channel, {})[subscriber] = None
        self._channels.setdefault(subscriber, {})[channel] = None

    def remove(self, subscriber: str, channel: str) -> bool:
        """Unsubscribe; False where there was nothing to end."""
        channels = self._channels.get(subscriber)
        if channels is None or channel not in channels:
            return False
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
        """Who listens now. This is the index itself, for the fan-out: look, do not keep."""
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
        return sum(map(len, self._channels.values()))
