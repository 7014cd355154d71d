"""One reader of topics or sessions: what it has, what it lacks, and what waits for it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from client_sdk.contract import Position
from client_sdk.errors import FloorcastError
from client_sdk.models import Gap, GapReason
from client_sdk.reading.buffers import Buffer
from client_sdk.reading.gaps import CheckResult, Continuity, GapTracker, Positioned
from client_sdk.stats import Counters


class TopicMessage(Positioned, Protocol):
    """A message of a topic or session."""

    @property
    def topic(self) -> str: ...


MessageT = TypeVar("MessageT", bound=TopicMessage)


@dataclass(frozen=True, slots=True)
class TopicState(Generic[MessageT]):
    """What the server says of a topic or session, when asked."""

    epoch: str
    seq: int
    recovered: bool
    snapshot: MessageT | None
    missed: Sequence[MessageT]


class Reader(Generic[MessageT]):
    """Gets each message exactly once and in order, or a `Gap` where that cannot be."""

    def __init__(
        self, capacity: int, counters: Counters, *, on_space: Callable[["Reader[MessageT]"], None]
    ) -> None:
        self._counters = counters
        self._on_space = on_space
        self._buffer: Buffer[MessageT | Gap] = Buffer(capacity)
        self._trackers: dict[str, GapTracker] = {}
        self._continuities: dict[str, Continuity] = {}
        # Topics whose messages found no room; they are asked for once there is some.
        self._behind: set[str] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._unsynced: set[str] = set()
        self.is_ended = False
        self.error: FloorcastError | None = None

    def add_topic(
        self, topic: str, continuity: Continuity, position: Position | None = None
    ) -> None:
        """From now on it reads this too, from a position or from where the topic stands."""
        self._trackers[topic] = GapTracker(continuity, position)
        self._continuities[topic] = continuity
        self._unsynced.add(topic)

    @property
    def topics(self) -> tuple[str, ...]:
        """What it reads."""
        return tuple(self._trackers)

    def position(self, topic: str) -> Position | None:
        """How far it has come."""
        return self._trackers[topic].position

    def is_behind(self, topic: str) -> bool:
        """Whether it has no room for what the topic has to say."""
        return topic in self._behind

    def is_blocked(self, topic: str) -> bool:
        """Whether it is behind, and has too much to read yet to be brought further."""
        return topic in self._behind and not self._buffer.has_space

    def reset(self, topic: str) -> None:
        """What it has of a topic is worth nothing: it needs a snapshot."""
        self._trackers[topic].reset()

    # --- what comes

    def receive(self, topic: str, message: MessageT) -> bool:
        """Take a message; False where others are missing before it."""
        track = self._trackers[topic]
        verdict = track.check(message)
        if verdict is CheckResult.KNOWN:
            if message.type != "heartbeat":
                self._counters.duplicates += 1
            return True
        if topic in self._behind:
            return True
        if verdict is CheckResult.GAP:
            return False
        self._store(topic, track, message)
        return True

    def apply_state(self, topic: str, state: TopicState[MessageT]) -> bool:
        """Take what the server says of a topic; False where it has to be asked again.

        That is so where it was asked on behalf of another reader, who had come further.
        """
        self._unsynced.discard(topic)
        self._notify()
        chain, track = self._continuities[topic], self._trackers[topic]
        if chain is not Continuity.LATEST and self._buffer.is_full:
            self._behind.add(topic)
            return True
        self._behind.discard(topic)
        position = track.position
        if position is not None and chain is Continuity.COMPLETE:
            if state.recovered and position.epoch == state.epoch:
                return self._catch_up(topic, track, state)
            if not self._report_gap(topic, track, state):
                return False
        snapshot = state.snapshot
        if snapshot is None:
            if track.epoch != state.epoch or track.seq < state.seq:
                track.advance(state.epoch, state.seq)
        elif track.epoch != snapshot.epoch or track.seq < snapshot.seq:
            # Also where a kept stream begins: it stands for everything up to its place.
            self._store(topic, track, snapshot)
        return True

    def _catch_up(self, topic: str, track: GapTracker, state: TopicState[MessageT]) -> bool:
        if not track.seq and state.missed:
            # An epoch may go on with the numbers of the one before.
            track.advance(state.epoch, state.missed[0].seq - 1)
        for message in state.missed:
            if topic not in self._behind and track.check(message) is CheckResult.NEXT:
                self._store(topic, track, message)
        return topic in self._behind or track.seq >= state.seq

    def _report_gap(self, topic: str, track: GapTracker, state: TopicState[MessageT]) -> bool:
        """Say what is lost; False where what came after that has to be asked for."""
        missed_from = track.seq + 1
        if track.epoch != state.epoch:
            self._put_gap(Gap(topic, track.epoch, missed_from, None, GapReason.EPOCH))
            # All that the new epoch has had until now may still be there.
            track.advance(state.epoch, 0)
            return state.seq == 0
        if state.seq < track.seq:
            # The server is back at what it had kept: the places after that are given again.
            self._put_gap(Gap(topic, track.epoch, missed_from, None, GapReason.EPOCH))
            track.advance(state.epoch, state.seq)
            return True
        # The snapshot, where there is one, is the message at its place.
        last = state.seq if state.snapshot is None else state.snapshot.seq - 1
        if last > track.seq:
            self._put_gap(Gap(topic, track.epoch, missed_from, last, GapReason.HISTORY))
            track.advance(state.epoch, last)
        return True

    def _put_gap(self, gap: Gap) -> None:
        self._counters.gaps += 1
        self._buffer.put(gap)
        self._notify()

    def _store(self, topic: str, track: GapTracker, message: MessageT) -> None:
        if self._continuities[topic] is Continuity.LATEST:
            self._counters.merged += self._buffer.replace(topic, message)
        elif self._buffer.is_full:
            self._behind.add(topic)
            return
        else:
            self._buffer.put(message)
        track.advance(message.epoch, message.seq)
        self._notify()

    # --- its end

    def end(self, error: FloorcastError | None = None) -> None:
        """Nothing more comes; what waits can still be read."""
        if not self.is_ended:
            self.is_ended = True
            self.error = error
            self._notify()

    # --- what is read

    @property
    def is_ready(self) -> bool:
        """Whether the server has answered for each of its topics."""
        return not self._unsynced

    def take(self) -> MessageT | Gap | None:
        """The next item, if there is one."""
        item = self._buffer.take()
        if self._behind and self._buffer.has_space and not self.is_ended:
            self._on_space(self)
        return item

    async def wait_changed(self) -> None:
        """Wait until there is something to look at."""
        if self._waiter is not None:
            raise RuntimeError("a stream has one reader at a time")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
