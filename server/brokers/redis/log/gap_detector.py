"""Follows the channels that are watched here: what comes is in order, or the log is asked."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from server.core.log.entries import Entry, Position, Reset

# What may come of one channel while its log is read; more is read again.
_MAX_HELD = 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a channel stands, and what came after the place that was known, if that can be told."""

    head: Position
    latest: Entry | None = None
    missed: tuple[Entry, ...] | None = None


class Watch:
    """One channel: how far it was delivered, and what came while that is being made sure of."""

    __slots__ = ("awaited", "channel", "held", "position", "settled")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        # None until it was read for the first time: whoever asks begins there.
        self.position: Position | None = None
        # None while what comes is delivered at once.
        self.held: deque[Entry] | None = deque(maxlen=_MAX_HELD)
        # Who waits for it to stand for good.
        self.settled: list[asyncio.Future[None]] = []
        # And who waits for it to have come so far.
        self.awaited: list[tuple[Position, asyncio.Future[None]]] = []


class Watches:
    """No I/O: it is told what comes and what was read, and says what has to be read."""

    def __init__(
        self,
        deliver: Callable[[Entry], None],
        reset: Callable[[Reset], None],
        count: Callable[[str], None],
    ) -> None:
        self._deliver = deliver
        self._reset = reset
        self._count = count
        self._watches: dict[str, Watch] = {}
        # Read before anything more of them is delivered; in the order in which they fell behind.
        self.behind: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._watches)

    def __contains__(self, channel: object) -> bool:
        return channel in self._watches

    def channels(self) -> Iterable[str]:
        """All that are watched."""
        return tuple(self._watches)

    def get(self, channel: str) -> Watch | None:
        """The watch of a channel."""
        return self._watches.get(channel)

    def add(self, channel: str) -> Watch:
        """Watch a channel; nothing of it is delivered before it was read."""
        watch = self._watches.get(channel)
        if watch is None:
            watch = self._watches[channel] = Watch(channel)
        return watch

    def drop(self, channel: str) -> None:
        """Watch it no more."""
        watch = self._watches.pop(channel, None)
        self.behind.pop(channel, None)
        if watch is not None:
            _settle(watch)
            _release(watch, watch.awaited)

    def doubt(self, channel: str) -> None:
        """Something may have been missed: hold what comes until the log was read."""
        watch = self._watches.get(channel)
        if watch is not None:
            if watch.held is None:
                watch.held = deque(maxlen=_MAX_HELD)
            self.behind[channel] = None

    def hear(self, entry: Entry) -> bool:
        """Take what was told of a channel; True where the log has to be asked now."""
        watch = self._watches.get(entry.channel)
        if watch is None:
            return False
        if watch.held is not None:
            watch.held.append(entry)
            return False
        if self._take(watch, entry):
            return False
        # A hole, or another history: the log knows, and has this entry too.
        self._count("broker.holes")
        self.doubt(entry.channel)
        return True

    def read(self, channel: str, known: Position | None, reading: Reading) -> bool:
        """Take what the log says came after `known`; True where it has to be asked again."""
        watch = self._watches.get(channel)
        if watch is None or watch.held is None or watch.position != known:
            return False
        self.behind.pop(channel, None)
        self._catch_up(watch, reading)
        _release(watch, [each for each in watch.awaited if _has(watch, each[0])])
        held, watch.held = watch.held, None
        # What was told before it was read is in what was read, unless a stranger made it up: what
        # does not fit now is let go, so that it cannot make us ask for ever.
        fitting = [self._take(watch, entry) for entry in held]
        if not all(fitting):
            self.doubt(channel)
            return True
        _settle(watch)
        return False

    def reaches(self, channel: str, place: Position) -> asyncio.Future[None] | None:
        """Done when so much was delivered, or never will be; None where that is so already."""
        watch = self._watches.get(channel)
        if watch is None or watch.position is None or _has(watch, place):
            return None
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watch.awaited.append((place, reached))
        return reached

    def _catch_up(self, watch: Watch, reading: Reading) -> None:
        known, head = watch.position, reading.head
        if known is None:
            watch.position = head
            return
        watch.position = head
        if reading.missed is None:
            self._lose(watch.channel, head, reading.latest)
            return
        epoch = known.epoch
        for entry in reading.missed:
            place = entry.position
            if place.epoch != epoch:
                epoch = place.epoch
                self._lose(watch.channel, Position(epoch, place.seq - 1), None)
            self._deliver(entry)
        if epoch != head.epoch:
            self._lose(watch.channel, head, reading.latest)

    def _lose(self, channel: str, head: Position, latest: Entry | None) -> None:
        self._count("broker.resets")
        self._reset(Reset(channel, head, latest))

    def _take(self, watch: Watch, entry: Entry) -> bool:
        """Deliver what comes next; False where something lies between."""
        position, place = watch.position, entry.position
        assert position is not None
        if place.epoch != position.epoch or place.seq > position.seq + 1:
            return False
        if place.seq == position.seq + 1:
            watch.position = place
            self._deliver(entry)
            if watch.awaited:
                _release(watch, [each for each in watch.awaited if _has(watch, each[0])])
        return True


def _settle(watch: Watch) -> None:
    waiting, watch.settled = watch.settled, []
    for future in waiting:
        if not future.done():
            future.set_result(None)


def _has(watch: Watch, place: Position) -> bool:
    position = watch.position
    assert position is not None
    return position.epoch != place.epoch or position.seq >= place.seq


def _release(watch: Watch, reached: list[tuple[Position, asyncio.Future[None]]]) -> None:
    for each in tuple(reached):
        watch.awaited.remove(each)
        if not each[1].done():
            each[1].set_result(None)
