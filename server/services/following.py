"""Lets this node follow a topic or session for as long as anybody here listens to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.core.entries import Entry, Position
from server.delivery import Fanout
from server.delivery.channel import Channel
from server.delivery.view import View
from server.ports import Broker

# Makes the view from the head and the newest entry.
Look = Callable[[Position, Entry | None], View]


class Following:
    """Watches at the broker what the fan-out has listeners for."""

    def __init__(self, broker: Broker, fanout: Fanout) -> None:
        self._broker = broker
        self._fanout = fanout
        # How many wait for a channel before they listen to it.
        self._openers: dict[str, int] = {}

    async def follow(self, name: str, look: Look) -> Channel:
        """Hold what comes, fetch the state, go on from there; nothing waits where it is known.

        Whoever follows must `release` it, listened or not.
        """
        channel = self._fanout.channel(name)
        if channel is not None:
            return channel
        with self.holding(name):
            self._fanout.prepare(name)
            await self._broker.watch(name)
            latest = await self._broker.latest(name)
            head = await self._broker.head(name) if latest is None else latest.position
            # Somebody else may have been quicker.
            channel = self._fanout.channel(name)
            if channel is None:
                channel = self._fanout.open(name, look(head, latest))
            return channel

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Meanwhile the channel stays, though nobody listens to it yet."""
        self._openers[name] = self._openers.get(name, 0) + 1
        try:
            yield
        finally:
            self._openers[name] -= 1
            if not self._openers[name]:
                del self._openers[name]
                # Nothing, unless the way to following it was cut short.
                self._fanout.abandon(name)

    async def since(self, name: str, seen: Position) -> list[Entry] | None:
        """Every kept entry after a place, or None where that cannot be told."""
        return await self._broker.since(name, seen)

    async def release(self, name: str) -> bool:
        """Let go of a channel, unless somebody here listens to it or waits for it."""
        if name in self._openers or not self._fanout.close(name):
            return False
        await self._broker.unwatch(name)
        return True
