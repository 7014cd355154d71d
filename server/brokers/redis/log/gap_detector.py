"""Detects gaps in the entries of watched channels, to be filled from the log."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from server.core.log.entries import Entry, Position, Reset

# Entries buffered per channel while its log is read; on overflow it is read again.
_MAX_BUFFERED = 1024


@dataclass(frozen=True, slots=True)
class LogState:
    """A channel's head and the entries after a known position; `missed` is None if unknown."""

    head: Position
    latest: Entry | None = None
    missed: tuple[Entry, ...] | None = None
    # Whether the full state of a book is from an earlier epoch.
    rolled_back: bool = False


class WatchedChannel:
    """A channel's last delivered position, and the entries buffered while its log is read."""

    __slots__ = ("buffered", "channel", "position", "position_waiters", "ready_waiters")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        # None until the log was read for the first time.
        self.position: Position | None = None
        # None while entries are delivered directly.
        self.buffered: deque[Entry] | None = deque(maxlen=_MAX_BUFFERED)
        # Futures of callers that wait until the channel is up to date.
        self.ready_waiters: list[asyncio.Future[None]] = []
        # Futures of callers that wait for a position.
        self.position_waiters: list[tuple[Position, asyncio.Future[None]]] = []


class GapDetector:
    """Does no I/O: takes received entries and log reads, and lists channels to read in `behind`."""

    def __init__(
        self,
        deliver: Callable[[Entry], None],
        on_reset: Callable[[Reset], None],
        count: Callable[[str], None],
    ) -> None:
        self._deliver = deliver
        self._on_reset = on_reset
        self._count = count
        self._channels: dict[str, WatchedChannel] = {}
        # Channels that must be read before more is delivered, in the order they fell behind.
        self.behind: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def __contains__(self, channel: object) -> bool:
        return channel in self._channels

    def channels(self) -> Iterable[str]:
        """All watched channels."""
        return tuple(self._channels)

    def get(self, channel: str) -> WatchedChannel | None:
        """The watched channel, or None."""
        return self._channels.get(channel)

    def add(self, channel: str) -> WatchedChannel:
        """Watch a channel; delivers nothing before its log was read."""
        watched = self._channels.get(channel)
        if watched is None:
            watched = self._channels[channel] = WatchedChannel(channel)
        return watched

    def drop(self, channel: str) -> None:
        """Stop watching a channel and wake all that wait for it."""
        watched = self._channels.pop(channel, None)
        self.behind.pop(channel, None)
        if watched is not None:
            _wake_ready(watched)
            _wake(watched, watched.position_waiters)

    def suspect(self, channel: str) -> None:
        """Suspect a gap: buffer entries until the log was read."""
        watched = self._channels.get(channel)
        if watched is not None:
            if watched.buffered is None:
                watched.buffered = deque(maxlen=_MAX_BUFFERED)
            self.behind[channel] = None

    def receive(self, entry: Entry) -> bool:
        """Process an entry from pub/sub; returns True if the log must be read now."""
        watched = self._channels.get(entry.channel)
        if watched is None:
            return False
        if watched.buffered is not None:
            watched.buffered.append(entry)
            return False
        if self._deliver_next(watched, entry):
            return False
        # A gap, or a new epoch: the log has the missing entries and this one.
        self._count("broker.holes")
        self.suspect(entry.channel)
        return True

    def apply_read(self, channel: str, known: Position | None, state: LogState) -> bool:
        """Process the log after `known`; returns True if it must be read again."""
        watched = self._channels.get(channel)
        if watched is None or watched.buffered is None or watched.position != known:
            return False
        self.behind.pop(channel, None)
        self._catch_up(watched, state)
        _wake(
            watched, [each for each in watched.position_waiters if _has_reached(watched, each[0])]
        )
        buffered, watched.buffered = watched.buffered, None
        # The log contains every genuine buffered entry. Drop those that do not fit: forged ones
        # must not cause endless reads.
        delivered = [self._deliver_next(watched, entry) for entry in buffered]
        if not all(delivered):
            self.suspect(channel)
            return True
        _wake_ready(watched)
        return False

    def wait_until(self, channel: str, target: Position) -> asyncio.Future[None] | None:
        """A future done once the position is delivered or never will be; None if it is already."""
        watched = self._channels.get(channel)
        if watched is None or watched.position is None or _has_reached(watched, target):
            return None
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watched.position_waiters.append((target, reached))
        return reached

    def _catch_up(self, watched: WatchedChannel, state: LogState) -> None:
        known, head = watched.position, state.head
        if known is None:
            watched.position = head
            return
        watched.position = head
        if state.missed is None:
            self._emit_reset(watched.channel, head, state.latest)
            return
        epoch = known.epoch
        for entry in state.missed:
            new = entry.position
            if new.epoch != epoch:
                epoch = new.epoch
                self._emit_reset(watched.channel, Position(epoch, new.seq - 1), None)
            self._deliver(entry)
        if epoch != head.epoch:
            self._emit_reset(watched.channel, head, state.latest)

    def _emit_reset(self, channel: str, head: Position, latest: Entry | None) -> None:
        self._count("broker.resets")
        self._on_reset(Reset(channel, head, latest))

    def _deliver_next(self, watched: WatchedChannel, entry: Entry) -> bool:
        """Deliver the next entry, ignore a known one; returns False if there is a gap."""
        position, new = watched.position, entry.position
        assert position is not None
        if new.epoch != position.epoch or new.seq > position.seq + 1:
            return False
        if new.seq == position.seq + 1:
            watched.position = new
            self._deliver(entry)
            if watched.position_waiters:
                _wake(
                    watched,
                    [each for each in watched.position_waiters if _has_reached(watched, each[0])],
                )
        return True


def _wake_ready(watched: WatchedChannel) -> None:
    waiting, watched.ready_waiters = watched.ready_waiters, []
    for future in waiting:
        if not future.done():
            future.set_result(None)


def _has_reached(watched: WatchedChannel, target: Position) -> bool:
    position = watched.position
    assert position is not None
    return position.epoch != target.epoch or position.seq >= target.seq


def _wake(watched: WatchedChannel, reached: list[tuple[Position, asyncio.Future[None]]]) -> None:
    for each in tuple(reached):
        watched.position_waiters.remove(each)
        if not each[1].done():
            each[1].set_result(None)
