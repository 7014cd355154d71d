"""Lets this node follow a topic or session for as long as anybody here listens to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from server.core.log.entries import Entry, Position
from server.delivery import Hub
from server.delivery.channel import Channel
from server.delivery.topic_state import ChannelState
from server.ports import Broker, Clock, ignore
from server.services.fifo_locks import FifoLocks

# Makes the view from the head and the newest entry.
StateFactory = Callable[[Position, Entry | None], ChannelState]

_MAX_WAITING = 100_000


@dataclass(frozen=True, slots=True)
class NodeSubscriptionsConfig:
    """How much of the past is told."""

    history_messages: int = 1_000
    history_bytes: int = 1024 * 1024
    history_seconds: float = 300.0


def entries_since(
    state: ChannelState, seen: Position, missed: list[Entry] | None
) -> list[Entry] | None:
    """What the broker told after this place, and what has come here while it was asked.

    None where what lies between that and the view's place cannot be told.
    """
    head = state.position
    if missed is None or seen.epoch != head.epoch or seen.seq > head.seq:
        return None
    known = [entry for entry in missed if entry.position.seq <= head.seq]
    rest = state.since(known[-1].position.seq if known else seen.seq)
    return None if rest is None else known + rest


class NodeSubscriptions:
    """Watches at the broker what the fan-out has listeners for."""

    def __init__(
        self, config: NodeSubscriptionsConfig, broker: Broker, hub: Hub, clock: Clock
    ) -> None:
        self._config = config
        self._broker = broker
        self._hub = hub
        self._clock = clock
        # How many wait for a channel before they listen to it.
        self._holds: dict[str, int] = {}
        # Watching and letting go must reach the broker in the order in which they were decided.
        self._locks = FifoLocks(max_waiting=_MAX_WAITING)

    async def subscribe(
        self, name: str, create_state: StateFactory, seen: Position | None = None
    ) -> tuple[Channel, list[Entry] | None]:
        """Hold what comes, fetch the state, go on from there; nothing waits where it is known.

        With a place that somebody has `seen`, also every kept entry after it, or None where that
        cannot be told, as far as the view itself has it not. The broker is asked for it last: what
        comes meanwhile is in the channel's view, and the two meet. Whoever follows must `release`
        the channel, listened or not.
        """
        channel = self._hub.channel(name)
        if channel is not None and seen is None:
            return channel, None
        with self.hold(name):
            if channel is None:
                channel = await self._subscribe(name, create_state)
            missed = None if seen is None else await self._missed_since(channel, seen)
            return channel, missed

    async def _missed_since(self, channel: Channel, seen: Position) -> list[Entry] | None:
        view = channel.state
        # One that has come from another node may be further than what was heard here.
        if seen.epoch == view.position.epoch and seen.seq <= view.position.seq:
            # Many may come back at once, to a past that the first of them has asked for.
            known = view.since(seen.seq)
            if known is not None and self._is_within_history(known):
                return []
        missed = await self._broker.since(channel.name, seen)
        if missed:
            view.prepend_history(missed)
        return missed

    def _is_within_history(self, entries: list[Entry]) -> bool:
        """Whether that is no more than the history tells, though the view may know more."""
        config = self._config
        return not entries or (
            len(entries) <= config.history_messages
            and sum(len(entry.data) for entry in entries) <= config.history_bytes
            and entries[0].ts_ms / 1000 + config.history_seconds > self._clock.time()
        )

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Meanwhile the channel stays, though nobody listens to it yet."""
        self._holds[name] = self._holds.get(name, 0) + 1
        try:
            yield
        finally:
            self._holds[name] -= 1
            if not self._holds[name]:
                del self._holds[name]

    async def release(self, name: str, on_closed: Callable[[str], None] = ignore) -> None:
        """Let go of a channel, unless somebody here listens to it or waits for it.

        `closed` is called at the moment when it is not followed any more.
        """
        if name in self._holds or not self._hub.close(name):
            return
        on_closed(name)
        await self._locks.acquire(name)
        try:
            # Somebody may have come while this waited for its turn.
            if name not in self._holds and self._hub.channel(name) is None:
                await self._broker.unwatch(name)
        finally:
            self._locks.release(name)

    async def _subscribe(self, name: str, create_state: StateFactory) -> Channel:
        await self._locks.acquire(name)
        try:
            # Somebody else may have been quicker.
            channel = self._hub.channel(name)
            if channel is not None:
                return channel
            self._hub.prepare(name)
            try:
                await self._broker.watch(name)
                latest = await self._broker.latest(name)
                head = await self._broker.head(name) if latest is None else latest.position
            except BaseException:
                self._hub.abandon(name)
                await self._broker.unwatch(name)
                raise
            return self._hub.open(name, create_state(head, latest))
        finally:
            self._locks.release(name)
