"""Subscribes this node at the broker to the channels that its clients need."""

from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from server.core.log.channel_state import ChannelState
from server.core.log.entries import Entry, Position
from server.core.sessions.histories import HistoryRules
from server.delivery import Hub
from server.delivery.channel import Channel
from server.ports import Broker, Clock, ignore
from server.services.fifo_locks import FifoLocks

# Creates a channel's state from its head and its newest entry.
StateFactory = Callable[[Position, Entry | None], ChannelState]

_MAX_WAITING = 100_000
# A reply holds no more.
_MAX_NEWEST = 1_000


@dataclass(frozen=True, slots=True)
class Missed:
    """The kept entries after a position, up to a seq from which the channel's state goes on."""

    entries: list[Entry]
    end_seq: int


def entries_since(state: ChannelState, seen: Position, missed: Missed | None) -> list[Entry] | None:
    """The entries after `seen`: the broker's reply and what this node received meanwhile.

    None if the two leave a gap, or if `seen` is of another epoch or ahead of the state.
    """
    head = state.position
    if missed is None or seen.epoch != head.epoch or seen.seq > head.seq:
        return None
    known = [entry for entry in missed.entries if entry.position.seq <= head.seq]
    rest = state.since(known[-1].position.seq if known else missed.end_seq)
    return None if rest is None else known + rest


async def release_each(
    names: Iterable[str], release: Callable[[str], Coroutine[Any, Any, None]]
) -> None:
    """Release every channel, even if one fails; then raises the first failure."""
    failures = []
    for name in names:
        try:
            await release(name)
        except Exception as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


class NodeSubscriptions:
    """This node's subscriptions at the broker: one for each channel that clients need."""

    def __init__(self, histories: HistoryRules, broker: Broker, hub: Hub, clock: Clock) -> None:
        # What a client can recover.
        self._histories = histories
        self._broker = broker
        self._hub = hub
        self._clock = clock
        # How many requests hold each channel before a client is subscribed.
        self._holds: dict[str, int] = {}
        # `watch` and `unwatch` of a channel must reach the broker in the order of their calls.
        self._locks = FifoLocks(max_waiting=_MAX_WAITING)

    async def subscribe(
        self, name: str, create_state: StateFactory, seen: Position | None = None
    ) -> tuple[Channel, Missed | None]:
        """Receive a channel: watch it, load its state, then deliver. No await if it is open.

        With `seen`, also returns the kept entries after it that the channel's state lacks, None if
        they are unknown. The broker's history is read last, so that it overlaps with the state:
        join them with `entries_since`. You must call `release` afterwards, also if a client has
        subscribed.
        """
        channel = self._hub.channel(name)
        if channel is not None and seen is None:
            return channel, None
        with self.hold(name):
            if channel is None:
                channel = await self._subscribe(name, create_state)
            missed = None if seen is None else await self.missed_since(channel, seen)
            return channel, missed

    async def missed_since(self, channel: Channel, seen: Position) -> Missed | None:
        """The kept entries after `seen` that the state of an open channel lacks.

        None if they are unknown. Join them with `entries_since`; the channel must be held.
        """
        state, end_seq = channel.state, seen.seq
        # A client of another node may be ahead of this node's state.
        if seen.epoch == state.position.epoch and seen.seq <= state.position.seq:
            # If many clients recover at once, only the first needs the broker.
            known = state.since(seen.seq)
            if known is not None and self._is_within_history(channel.name, known):
                return Missed([], seen.seq)
            # An epoch can begin at a later seq than 1: then the broker has nothing before that.
            end_seq = state.position.seq
        entries = await self._broker.since(channel.name, seen)
        # An application's own broker may return more.
        if entries is None or not self._histories.of(channel.name).can_replay(entries):
            return None
        state.prepend_history(entries)
        return Missed(entries, end_seq)

    async def newest(self, name: str, limit: int) -> list[Entry]:
        """The newest kept entries of an open channel, oldest first."""
        limit = min(limit, self._histories.of(name).messages, _MAX_NEWEST)
        return await self._broker.before(name, None, limit)

    def _is_within_history(self, channel: str, entries: list[Entry]) -> bool:
        """Check that entries are within the history limits; the state may keep more."""
        bounds = self._histories.of(channel)
        return not entries or (
            len(entries) <= bounds.messages
            and sum(len(entry.data) for entry in entries) <= bounds.bytes
            and bounds.can_replay(entries)
            and entries[0].ts_ms / 1000 + bounds.seconds > self._clock.time()
        )

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Keep the channel open inside the context, even without subscribers."""
        self._holds[name] = self._holds.get(name, 0) + 1
        try:
            yield
        finally:
            self._holds[name] -= 1
            if not self._holds[name]:
                del self._holds[name]

    def is_held(self, name: str) -> bool:
        """Whether a request holds the channel."""
        return name in self._holds

    async def release(self, name: str, on_closed: Callable[[str], None] = ignore) -> None:
        """Stop receiving a channel, unless it has subscribers or is held.

        Calls `on_closed` as soon as the hub has closed the channel, before the broker is reached.
        """
        if name in self._holds or not self._hub.close(name):
            return
        on_closed(name)
        await self._locks.acquire(name)
        try:
            # Another request may have opened the channel meanwhile.
            if name not in self._holds and self._hub.channel(name) is None:
                await self._broker.unwatch(name)
        finally:
            self._locks.release(name)

    async def _subscribe(self, name: str, create_state: StateFactory) -> Channel:
        await self._locks.acquire(name)
        try:
            # Another request may have opened the channel meanwhile.
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
