"""One subscription to a topic or session, shared by all of this client's readers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic

from client_sdk.contract import Position
from client_sdk.errors import FloorcastError
from client_sdk.reading.gaps import Continuity
from client_sdk.reading.readers import MessageT, Reader, TopicState
from client_sdk.stats import Counters


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader without a position begins: at a time, or so many messages back."""

    ts_ms: int | None = None
    last: int = 0


class TopicSubscription(Generic[MessageT]):
    """Decides what to request from the server so that no reader misses anything.

    The owner sends a request while `needs_sync`: `begin_sync()` gives the position to ask from,
    then `apply_state()` takes the reply, or `abort_sync()` records that there is none.
    """

    def __init__(self, topic: str, continuity: Continuity, counters: Counters) -> None:
        self.topic = topic
        self.continuity = continuity
        self._counters = counters
        self._readers: list[Reader[MessageT]] = []
        self.needs_sync = True
        self.is_syncing = False
        # True if the state did not fit into a reply that other topics shared.
        self.needs_own_request = False
        self._since: Position | None = None
        # Of the readers that have no state yet.
        self._starts: dict[Reader[MessageT], Start] = {}

    @property
    def readers(self) -> Sequence[Reader[MessageT]]:
        """Its readers."""
        return self._readers

    def add(
        self,
        reader: Reader[MessageT],
        position: Position | None = None,
        start: Start | None = None,
    ) -> None:
        """Add a reader, from a position, from a start, or from the current state."""
        reader.add_topic(self.topic, self.continuity, position)
        self._readers.append(reader)
        if start is not None and position is None and self.continuity is Continuity.COMPLETE:
            self._starts[reader] = start
            # Its start is that of the whole request.
            self.needs_own_request = True
        self.needs_sync = True

    def remove(self, reader: Reader[MessageT]) -> None:
        """Remove a reader; no-op if it is unknown."""
        self._starts.pop(reader, None)
        if reader in self._readers:
            self._readers.remove(reader)

    def notify(self) -> None:
        """Wake the tasks that wait for a change of its readers: its status has changed."""
        for reader in self._readers:
            reader.notify()

    # --- receiving

    def receive(self, message: MessageT) -> bool:
        """Give a message to all readers; False if the owner must send a new request."""
        complete = True
        for reader in self._readers:
            if not reader.receive(self.topic, message):
                complete = False
        if complete or self.is_syncing or self.needs_sync:
            # A request that is due or pending closes this gap too.
            return True
        self._counters.gaps_seen += 1
        self.needs_sync = True
        self.notify()
        return False

    # --- syncing with the server

    def on_disconnect(self) -> None:
        """Record that the subscription ended with its connection."""
        self.needs_sync, self.is_syncing = True, False
        self.needs_own_request = bool(self._starts)
        self.notify()

    def begin_sync(self) -> Position | None:
        """Start a request; returns the position to ask from, or None for the current state."""
        self.needs_sync, self.is_syncing = False, True
        self.notify()
        self._since = None if self._starts else self._oldest_position()
        return self._since

    @property
    def start(self) -> Start | None:
        """What to ask for if there is no position: the earliest start of all readers."""
        starts = self._starts.values()
        times = [each.ts_ms for each in starts if each.ts_ms is not None]
        last = max((each.last for each in starts), default=0)
        return Start(min(times, default=None), last) if starts else None

    def _oldest_position(self) -> Position | None:
        positions = []
        for reader in self._readers:
            position = reader.position(self.topic)
            if position is None and self.continuity is not Continuity.COMPLETE:
                # It has nothing and needs a snapshot.
                return None
            if position is not None and not reader.is_blocked(self.topic):
                positions.append(position)
        return min(positions, key=lambda each: each.seq, default=None)

    def abort_sync(self) -> None:
        """Record that the request got no reply: it must be sent again."""
        if self.is_syncing:
            self.needs_sync, self.is_syncing = True, False

    def apply_state(self, state: TopicState[MessageT], *, shared: bool) -> bool:
        """Give the server's state to the readers; False if another request is needed.

        `shared` says that the reply had to fit the states of other topics too.
        """
        self.is_syncing = False
        self.notify()
        if shared and self.is_unrecovered(state):
            self.needs_sync = self.needs_own_request = True
            return False
        self.needs_own_request = False
        self._begin_epoch(state)
        for reader in tuple(self._readers):
            if reader.is_blocked(self.topic):
                continue
            start = self._starts.pop(reader, None)
            if start is not None:
                complete = reader.apply_start(self.topic, _from(start, state), start.ts_ms)
            else:
                complete = self._applies_to(reader, state) and reader.apply_state(self.topic, state)
            if not complete:
                self.needs_sync = True
        return not self.needs_sync

    def _begin_epoch(self, state: TopicState[MessageT]) -> None:
        """Tell the readers where the epoch begins, if the reply has all of its messages."""
        since = self._since
        if (
            self.continuity is Continuity.COMPLETE
            and state.recovered
            and since == Position(epoch=state.epoch, seq=0)
        ):
            first_seq = state.missed[0].seq if state.missed else state.seq + 1
            for reader in self._readers:
                reader.begin_epoch(self.topic, state.epoch, first_seq)

    def is_unrecovered(self, state: TopicState[MessageT]) -> bool:
        """True if the missed messages are gone, or were too many for the reply."""
        since = self._since
        return (
            self.continuity is Continuity.COMPLETE
            and since is not None
            and since.epoch == state.epoch
            and not state.recovered
        )

    def start_new_readers(self, state: TopicState[MessageT]) -> None:
        """Let the readers that have no position yet begin at this state; the others wait."""
        for reader in tuple(self._readers):
            if reader.position(self.topic) is None:
                reader.apply_state(self.topic, state)

    def _applies_to(self, reader: Reader[MessageT], state: TopicState[MessageT]) -> bool:
        """True if the state answers this reader's needs, not only those of the oldest position."""
        position, since = reader.position(self.topic), self._since
        if self.continuity is not Continuity.COMPLETE:
            # A reader that was added or reset after the request needs a snapshot.
            return position is not None or since is None
        if state.recovered:
            return True
        if position is None or position.epoch != state.epoch:
            return True
        return since is not None and since.epoch == position.epoch and position.seq <= since.seq

    def fail(self, error: FloorcastError) -> None:
        """End all readers with an error."""
        self.is_syncing = self.needs_sync = False
        for reader in tuple(self._readers):
            reader.end(error.clone())


def _from(start: Start, state: TopicState[MessageT]) -> TopicState[MessageT]:
    """The part of a state that one reader asked for."""
    missed = state.missed
    if state.recovered and start.ts_ms is not None:
        missed = [each for each in missed if each.ts >= start.ts_ms]
    elif start.last:
        missed = missed[-start.last :]
    return replace(state, missed=missed)
