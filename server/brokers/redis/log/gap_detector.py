"""Follows the channels that are watched here: what comes is in order, or the log is asked."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from server.core.log.entries import Entry, Position, Reset

# What may come of one channel while its log is read; more is read again.
_MAX_BUFFERED = 1024


@dataclass(frozen=True, slots=True)
class LogState:
    """Where a channel stands, and what came after the place that was known, if that can be told."""

    head: Position
    latest: Entry | None = None
    missed: tuple[Entry, ...] | None = None


class WatchedChannel:
    """One channel: how far it was delivered, and what came while that is being made sure of."""

    __slots__ = ("buffered", "channel", "position", "position_waiters", "ready_waiters")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        # None until it was read for the first time: whoever asks begins there.
        self.position: Position | None = None
        # None while what comes is delivered at once.
        self.buffered: deque[Entry] | None = deque(maxlen=_MAX_BUFFERED)
        # Who waits for it to stand for good.
        self.ready_waiters: list[asyncio.Future[None]] = []
        # And who waits for it to have come so far.
        self.position_waiters: list[tuple[Position, asyncio.Future[None]]] = []


class GapDetector:
    """No I/O: it is told what comes and what was read, and says what has to be read."""

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
        # Read before anything more of them is delivered; in the order in which they fell behind.
        self.behind: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def __contains__(self, channel: object) -> bool:
        return channel in self._channels

    def channels(self) -> Iterable[str]:
        """All that are watched."""
        return tuple(self._channels)

    def get(self, channel: str) -> WatchedChannel | None:
        """The watch of a channel."""
        return self._channels.get(channel)

    def add(self, channel: str) -> WatchedChannel:
        """Watch a channel; nothing of it is delivered before it was read."""
        watch = self._channels.get(channel)
        if watch is None:
            watch = self._channels[channel] = WatchedChannel(channel)
        return watch

    def drop(self, channel: str) -> None:
        """Watch it no more."""
        watch = self._channels.pop(channel, None)
        self.behind.pop(channel, None)
        if watch is not None:
            _wake_ready(watch)
            _wake(watch, watch.position_waiters)

    def suspect(self, channel: str) -> None:
        """Something may have been missed: hold what comes until the log was read."""
        watch = self._channels.get(channel)
        if watch is not None:
            if watch.buffered is None:
                watch.buffered = deque(maxlen=_MAX_BUFFERED)
            self.behind[channel] = None

    def receive(self, entry: Entry) -> bool:
        """Take what was told of a channel; True where the log has to be asked now."""
        watch = self._channels.get(entry.channel)
        if watch is None:
            return False
        if watch.buffered is not None:
            watch.buffered.append(entry)
            return False
        if self._deliver_next(watch, entry):
            return False
        # A hole, or another history: the log knows, and has this entry too.
        self._count("broker.holes")
        self.suspect(entry.channel)
        return True

    def apply_read(self, channel: str, known: Position | None, state: LogState) -> bool:
        """Take what the log says came after `known`; True where it has to be asked again."""
        watch = self._channels.get(channel)
        if watch is None or watch.buffered is None or watch.position != known:
            return False
        self.behind.pop(channel, None)
        self._catch_up(watch, state)
        _wake(watch, [each for each in watch.position_waiters if _has_reached(watch, each[0])])
        held, watch.buffered = watch.buffered, None
        # What was told before it was read is in what was read, unless a stranger made it up: what
        # does not fit now is let go, so that it cannot make us ask for ever.
        fitting = [self._deliver_next(watch, entry) for entry in held]
        if not all(fitting):
            self.suspect(channel)
            return True
        _wake_ready(watch)
        return False

    def wait_until(self, channel: str, target: Position) -> asyncio.Future[None] | None:
        """Done when so much was delivered, or never will be; None where that is so already."""
        watch = self._channels.get(channel)
        if watch is None or watch.position is None or _has_reached(watch, target):
            return None
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watch.position_waiters.append((target, reached))
        return reached

    def _catch_up(self, watch: WatchedChannel, reading: LogState) -> None:
        known, head = watch.position, reading.head
        if known is None:
            watch.position = head
            return
        watch.position = head
        if reading.missed is None:
            self._emit_reset(watch.channel, head, reading.latest)
            return
        epoch = known.epoch
        for entry in reading.missed:
            place = entry.position
            if place.epoch != epoch:
                epoch = place.epoch
                self._emit_reset(watch.channel, Position(epoch, place.seq - 1), None)
            self._deliver(entry)
        if epoch != head.epoch:
            self._emit_reset(watch.channel, head, reading.latest)

    def _emit_reset(self, channel: str, head: Position, latest: Entry | None) -> None:
        self._count("broker.resets")
        self._on_reset(Reset(channel, head, latest))

    def _deliver_next(self, watch: WatchedChannel, entry: Entry) -> bool:
        """Deliver what comes next; False where something lies between."""
        position, place = watch.position, entry.position
        assert position is not None
        if place.epoch != position.epoch or place.seq > position.seq + 1:
            return False
        if place.seq == position.seq + 1:
            watch.position = place
            self._deliver(entry)
            if watch.position_waiters:
                _wake(
                    watch, [each for each in watch.position_waiters if _has_reached(watch, each[0])]
                )
        return True


def _wake_ready(watch: WatchedChannel) -> None:
    waiting, watch.ready_waiters = watch.ready_waiters, []
    for future in waiting:
        if not future.done():
            future.set_result(None)


def _has_reached(watch: WatchedChannel, target: Position) -> bool:
    position = watch.position
    assert position is not None
    return position.epoch != target.epoch or position.seq >= target.seq


def _wake(watch: WatchedChannel, reached: list[tuple[Position, asyncio.Future[None]]]) -> None:
    for each in tuple(reached):
        watch.position_waiters.remove(each)
        if not each[1].done():
            each[1].set_result(None)
