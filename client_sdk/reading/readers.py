"""One reader of topics or sessions: its buffer, its positions, and the gaps in them."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from client_sdk.contract import Position
from client_sdk.errors import FloorcastError
from client_sdk.reading.gaps import (
    CheckResult,
    Continuity,
    Gap,
    GapReason,
    GapTracker,
    Positioned,
)
from client_sdk.stats import Counters

ItemT = TypeVar("ItemT")


class _LatestSlot:
    """A slot in the queue whose item is replaced until somebody takes it."""

    __slots__ = ("topic",)

    def __init__(self, topic: str) -> None:
        self.topic = topic


class Buffer(Generic[ItemT]):
    """A bounded queue of kept items, and of slots for the latest item of a topic."""

    __slots__ = ("_capacity", "_kept_count", "_latest", "_queue")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: deque[ItemT | _LatestSlot] = deque()
        self._latest: dict[str, ItemT] = {}
        self._kept_count = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """True if there is no space for another kept item."""
        return self._kept_count >= self._capacity

    @property
    def has_space(self) -> bool:
        """True once it is half empty, so that fetching more is worth a request."""
        return self._kept_count <= self._capacity // 2

    def replace(self, topic: str, item: ItemT) -> bool:
        """Put the latest item of a topic; True if it replaced an unread one."""
        replaced = topic in self._latest
        if not replaced:
            self._queue.append(_LatestSlot(topic))
        self._latest[topic] = item
        return replaced

    def put(self, item: ItemT) -> None:
        """Put a kept item; the caller must check `is_full` first."""
        self._queue.append(item)
        self._kept_count += 1

    def take(self) -> ItemT | None:
        """The next item, or None."""
        if not self._queue:
            return None
        item = self._queue.popleft()
        if isinstance(item, _LatestSlot):
            return self._latest.pop(item.topic)
        self._kept_count -= 1
        return item


class TopicMessage(Positioned, Protocol):
    """A message of a topic or session."""

    @property
    def topic(self) -> str: ...

    @property
    def ts(self) -> int: ...


MessageT = TypeVar("MessageT", bound=TopicMessage)


@dataclass(frozen=True, slots=True)
class TopicState(Generic[MessageT]):
    """The server's reply on a topic or session: its position, a snapshot, missed messages."""

    epoch: str
    seq: int
    recovered: bool
    snapshot: MessageT | None
    missed: Sequence[MessageT]


class Reader(Generic[MessageT]):
    """Gets each message exactly once and in order, or a `Gap` where messages are missing."""

    def __init__(
        self, capacity: int, counters: Counters, *, on_space: Callable[["Reader[MessageT]"], None]
    ) -> None:
        self._counters = counters
        self._on_space = on_space
        self._buffer: Buffer[MessageT | Gap] = Buffer(capacity)
        self._trackers: dict[str, GapTracker] = {}
        # Most readers have one topic: a message then need not be asked for its own.
        self._only_topic: str | None = None
        self._continuities: dict[str, Continuity] = {}
        # Topics whose messages did not fit; to be fetched again once there is space.
        self._behind: set[str] = set()
        # By topic: the epoch and seq up to which its items were taken.
        self._taken: dict[str, tuple[str, int]] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._unsynced: set[str] = set()
        self.is_ended = False
        self.error: FloorcastError | None = None

    def add_topic(
        self, topic: str, continuity: Continuity, position: Position | None = None
    ) -> None:
        """Read this topic too, from a position or from its current state."""
        self._only_topic = None if self._trackers.keys() - {topic} else topic
        self._trackers[topic] = GapTracker(continuity, position)
        self._continuities[topic] = continuity
        if position is not None:
            self._taken[topic] = (position.epoch, position.seq)
        self._unsynced.add(topic)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it reads."""
        return tuple(self._trackers)

    def position(self, topic: str) -> Position | None:
        """Its position in a topic, buffered messages included."""
        return self._trackers[topic].position

    def is_behind(self, topic: str) -> bool:
        """True if messages of the topic did not fit."""
        return topic in self._behind

    def is_blocked(self, topic: str) -> bool:
        """True if it is behind, and too much is unread to fetch more."""
        return topic in self._behind and not self._buffer.has_space

    def reset(self, topic: str) -> None:
        """Forget its position in a topic: it needs a snapshot."""
        self._trackers[topic].reset()

    def begin_epoch(self, topic: str, epoch: str, first_seq: int) -> None:
        """Record that an epoch begins at `first_seq`: it continues the numbers of another one."""
        tracker = self._trackers[topic]
        if tracker.epoch == epoch and tracker.seq == 0:
            tracker.advance(epoch, first_seq - 1)

    # --- receiving

    def receive(self, topic: str, message: MessageT) -> bool:
        """Take a message; False if others are missing before it."""
        tracker = self._trackers[topic]
        result = tracker.check(message)
        if result is CheckResult.KNOWN:
            if message.type != "heartbeat":
                self._counters.duplicates += 1
            return True
        if topic in self._behind:
            return True
        if result is CheckResult.GAP:
            return False
        self._store(topic, tracker, message)
        return True

    def apply_start(self, topic: str, state: TopicState[MessageT], ts_ms: int | None) -> bool:
        """Begin with the missed messages of a state; `ts_ms` is the time that was asked for.

        Returns False if the state must be requested again.
        """
        if ts_ms is not None and not state.recovered:
            # The messages since that time are gone, as far as the reader can know all of them.
            first = state.missed[0] if state.missed else state.snapshot
            last = state.seq if first is None else first.seq - 1
            self._put_gap(Gap(topic, state.epoch, 1, last, GapReason.HISTORY))
        if state.missed:
            self._trackers[topic].advance(state.epoch, state.missed[0].seq - 1)
            state = replace(state, recovered=True, snapshot=None)
        return self.apply_state(topic, state)

    def expect_reply(self, name: str) -> None:
        """Wait for a reply about a pattern."""
        self._unsynced.add(name)

    def reply_received(self, name: str) -> None:
        """Record the reply about a pattern."""
        self._unsynced.discard(name)
        self.notify()

    def apply_state(self, topic: str, state: TopicState[MessageT]) -> bool:
        """Take the server's state of a topic; False if it must be requested again.

        That happens if the request was made for a reader with a newer position.
        """
        self._unsynced.discard(topic)
        self.notify()
        continuity, tracker = self._continuities[topic], self._trackers[topic]
        if continuity is not Continuity.LATEST and self._buffer.is_full:
            self._behind.add(topic)
            return True
        self._behind.discard(topic)
        position = tracker.position
        if position is not None and continuity is Continuity.COMPLETE:
            if state.recovered and position.epoch == state.epoch:
                return self._catch_up(topic, tracker, state)
            if not self._report_gap(topic, tracker, state):
                return False
        snapshot = state.snapshot
        if snapshot is None:
            if state.seq and not state.recovered and continuity is not Continuity.COMPLETE:
                # It did not fit into the reply, and follows as a message with this position.
                tracker.reset()
            elif tracker.epoch != state.epoch or tracker.seq < state.seq:
                tracker.advance(state.epoch, state.seq)
        elif tracker.epoch != snapshot.epoch or tracker.seq < snapshot.seq:
            # Also the start of a complete stream: the snapshot is its newest message.
            self._store(topic, tracker, snapshot)
        return True

    def _catch_up(self, topic: str, tracker: GapTracker, state: TopicState[MessageT]) -> bool:
        for message in state.missed:
            if topic not in self._behind and tracker.check(message) is CheckResult.NEXT:
                self._store(topic, tracker, message)
        return topic in self._behind or tracker.seq >= state.seq

    def _report_gap(self, topic: str, tracker: GapTracker, state: TopicState[MessageT]) -> bool:
        """Report what is lost; False if the messages after it must be requested."""
        missed_from = tracker.seq + 1
        if tracker.epoch != state.epoch:
            self._put_gap(Gap(topic, tracker.epoch, missed_from, None, GapReason.EPOCH))
            # The whole new epoch may still be in the history.
            tracker.advance(state.epoch, 0)
            return state.seq == 0
        if state.seq < tracker.seq:
            # The server went back to an older state and assigns these positions again.
            self._put_gap(Gap(topic, tracker.epoch, missed_from, None, GapReason.EPOCH))
            tracker.advance(state.epoch, state.seq)
            return True
        # A snapshot is the message at its own position.
        last = state.seq if state.snapshot is None else state.snapshot.seq - 1
        if last > tracker.seq:
            self._put_gap(Gap(topic, tracker.epoch, missed_from, last, GapReason.HISTORY))
            tracker.advance(state.epoch, last)
        return True

    def _put_gap(self, gap: Gap) -> None:
        self._counters.gaps += 1
        self._buffer.put(gap)
        self.notify()

    def _store(self, topic: str, tracker: GapTracker, message: MessageT) -> None:
        if self._continuities[topic] is Continuity.LATEST:
            self._counters.merged += self._buffer.replace(topic, message)
        elif self._buffer.is_full:
            self._behind.add(topic)
            return
        else:
            self._buffer.put(message)
        tracker.advance(message.epoch, message.seq)
        self.notify()

    def end(self, error: FloorcastError | None = None) -> None:
        """Receive nothing more; buffered items can still be taken."""
        if not self.is_ended:
            self.is_ended = True
            self.error = error
            self.notify()

    # --- taking

    @property
    def is_ready(self) -> bool:
        """True once the server has replied for each topic."""
        return not self._unsynced

    def take(self) -> MessageT | Gap | None:
        """The next item, or None."""
        item = self._buffer.take()
        if item is not None:
            self._record_read(item)
        if self._behind and self._buffer.has_space and not self.is_ended:
            self._on_space(self)
        return item

    def _record_read(self, item: MessageT | Gap) -> None:
        if not isinstance(item, Gap):
            self._taken[self._only_topic or item.topic] = (item.epoch, item.seq)
        elif item.missed_to is not None:
            self._taken[item.topic] = (item.epoch, item.missed_to)

    @property
    def checkpoint(self) -> dict[str, Position]:
        """The position in each topic up to which its items were taken."""
        return {
            topic: Position(epoch=epoch, seq=seq) for topic, (epoch, seq) in self._taken.items()
        }

    async def wait_changed(self) -> None:
        """Wait for the next change; raises `RuntimeError` if another task waits already."""
        if self._waiter is not None:
            raise RuntimeError("a stream allows one reader at a time")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def notify(self) -> None:
        """Wake the task that waits for a change."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
