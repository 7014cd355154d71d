"""One reader of topics or sessions: what it has, what it lacks, and what waits for it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from client_sdk.contract import Position
from client_sdk.errors import FloorcastError
from client_sdk.models import Gap, GapReason
from client_sdk.reading.buffers import Buffer
from client_sdk.reading.gaps import Chain, Placed, Track, Verdict
from client_sdk.stats import Counters


class Heard(Placed, Protocol):
    """A message of a topic or session."""

    @property
    def topic(self) -> str: ...


HeardT = TypeVar("HeardT", bound=Heard)


@dataclass(frozen=True, slots=True)
class State(Generic[HeardT]):
    """What the server says of a topic or session, when asked."""

    epoch: str
    seq: int
    recovered: bool
    snapshot: HeardT | None
    missed: Sequence[HeardT]


class Listener(Generic[HeardT]):
    """Gets each message exactly once and in order, or a `Gap` where that cannot be."""

    def __init__(
        self, capacity: int, counters: Counters, *, on_room: Callable[["Listener[HeardT]"], None]
    ) -> None:
        self._counters = counters
        self._on_room = on_room
        self._buffer: Buffer[HeardT | Gap] = Buffer(capacity)
        self._tracks: dict[str, Track] = {}
        self._chains: dict[str, Chain] = {}
        # Topics whose messages found no room; they are asked for once there is some.
        self._behind: set[str] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._unanswered: set[str] = set()
        self.ended = False
        self.error: FloorcastError | None = None

    def follow(self, topic: str, chain: Chain, position: Position | None = None) -> None:
        """From now on it reads this too, from a position or from where the topic stands."""
        self._tracks[topic] = Track(chain, position)
        self._chains[topic] = chain
        self._unanswered.add(topic)

    @property
    def topics(self) -> tuple[str, ...]:
        """What it reads."""
        return tuple(self._tracks)

    def position(self, topic: str) -> Position | None:
        """How far it has come."""
        return self._tracks[topic].position

    def is_behind(self, topic: str) -> bool:
        """Whether it has no room for what the topic has to say."""
        return topic in self._behind

    def is_waiting(self, topic: str) -> bool:
        """Whether it is behind, and has too much to read yet to be brought further."""
        return topic in self._behind and not self._buffer.has_room

    def restart(self, topic: str) -> None:
        """What it has of a topic is worth nothing: it needs a snapshot."""
        self._tracks[topic].restart()

    # --- what comes

    def hear(self, topic: str, message: HeardT) -> bool:
        """Take a message; False where others are missing before it."""
        track = self._tracks[topic]
        verdict = track.judge(message)
        if verdict is Verdict.KNOWN:
            if message.type != "heartbeat":
                self._counters.duplicates += 1
            return True
        if topic in self._behind:
            return True
        if verdict is Verdict.GAP:
            return False
        self._keep(topic, track, message)
        return True

    def state(self, topic: str, state: State[HeardT]) -> bool:
        """Take what the server says of a topic; False where it has to be asked again.

        That is so where it was asked on behalf of another reader, who had come further.
        """
        self._unanswered.discard(topic)
        self._wake()
        chain, track = self._chains[topic], self._tracks[topic]
        if chain is not Chain.LATEST and self._buffer.is_full:
            self._behind.add(topic)
            return True
        self._behind.discard(topic)
        position = track.position
        if position is not None and chain is Chain.KEPT:
            if state.recovered and position.epoch == state.epoch:
                return self._catch_up(topic, track, state)
            if not self._tell_gap(topic, track, state):
                return False
        snapshot = state.snapshot
        if snapshot is None:
            if track.epoch != state.epoch or track.seq < state.seq:
                track.move(state.epoch, state.seq)
        elif track.epoch != snapshot.epoch or track.seq < snapshot.seq:
            # Also where a kept stream begins: it stands for everything up to its place.
            self._keep(topic, track, snapshot)
        return True

    def _catch_up(self, topic: str, track: Track, state: State[HeardT]) -> bool:
        if not track.seq and state.missed:
            # An epoch may go on with the numbers of the one before.
            track.move(state.epoch, state.missed[0].seq - 1)
        for message in state.missed:
            if topic not in self._behind and track.judge(message) is Verdict.NEXT:
                self._keep(topic, track, message)
        return topic in self._behind or track.seq >= state.seq

    def _tell_gap(self, topic: str, track: Track, state: State[HeardT]) -> bool:
        """Say what is lost; False where what came after that has to be asked for."""
        missed_from = track.seq + 1
        if track.epoch != state.epoch:
            self._put_gap(Gap(topic, track.epoch, missed_from, None, GapReason.EPOCH))
            # All that the new epoch has had until now may still be there.
            track.move(state.epoch, 0)
            return state.seq == 0
        if state.seq < track.seq:
            # The server is back at what it had kept: the places after that are given again.
            self._put_gap(Gap(topic, track.epoch, missed_from, None, GapReason.EPOCH))
            track.move(state.epoch, state.seq)
            return True
        # The snapshot, where there is one, is the message at its place.
        last = state.seq if state.snapshot is None else state.snapshot.seq - 1
        if last > track.seq:
            self._put_gap(Gap(topic, track.epoch, missed_from, last, GapReason.HISTORY))
            track.move(state.epoch, last)
        return True

    def _put_gap(self, gap: Gap) -> None:
        self._counters.gaps += 1
        self._buffer.put(gap)
        self._wake()

    def _keep(self, topic: str, track: Track, message: HeardT) -> None:
        if self._chains[topic] is Chain.LATEST:
            self._counters.merged += self._buffer.replace(topic, message)
        elif self._buffer.is_full:
            self._behind.add(topic)
            return
        else:
            self._buffer.put(message)
        track.move(message.epoch, message.seq)
        self._wake()

    # --- its end

    def end(self, error: FloorcastError | None = None) -> None:
        """Nothing more comes; what waits can still be read."""
        if not self.ended:
            self.ended = True
            self.error = error
            self._wake()

    # --- what is read

    @property
    def is_ready(self) -> bool:
        """Whether the server has answered for each of its topics."""
        return not self._unanswered

    def take(self) -> HeardT | Gap | None:
        """The next item, if there is one."""
        item = self._buffer.take()
        if self._behind and self._buffer.has_room and not self.ended:
            self._on_room(self)
        return item

    async def changed(self) -> None:
        """Wait until there is something to look at."""
        if self._waiter is not None:
            raise RuntimeError("a stream has one reader at a time")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
