"""A topic or session with all who read it here: one subscription serves them."""

from collections.abc import Sequence
from typing import Generic

from client_sdk.contract import Position
from client_sdk.errors import FloorcastError
from client_sdk.reading.gaps import Continuity
from client_sdk.reading.readers import MessageT, Reader, TopicState
from client_sdk.stats import Counters


class TopicSubscription(Generic[MessageT]):
    """Knows what to ask the server for, so that nobody here lacks anything."""

    def __init__(self, topic: str, continuity: Continuity, counters: Counters) -> None:
        self.topic = topic
        self.continuity = continuity
        self._counters = counters
        self._readers: list[Reader[MessageT]] = []
        # Whether the server has to be asked; whether it is being asked; whether an answer of its
        # own is needed, because it was too much for one that it had to share.
        self.needs_sync = True
        self.is_syncing = False
        self.needs_own_request = False
        self._since: Position | None = None

    @property
    def readers(self) -> Sequence[Reader[MessageT]]:
        """Who reads it."""
        return self._readers

    def add(self, listener: Reader[MessageT], position: Position | None = None) -> None:
        """Somebody reads it from now on, or from a position."""
        listener.add_topic(self.topic, self.continuity, position)
        self._readers.append(listener)
        self.needs_sync = True

    def remove(self, listener: Reader[MessageT]) -> None:
        """Somebody reads it no more."""
        if listener in self._readers:
            self._readers.remove(listener)

    # --- what comes

    def receive(self, message: MessageT) -> bool:
        """Take a message; False where the server has to be asked for what is missing before it."""
        complete = True
        for listener in self._readers:
            if not listener.receive(self.topic, message):
                complete = False
        if complete or self.is_syncing or self.needs_sync:
            # Whoever is being asked answers for this gap too.
            return True
        self._counters.gaps_seen += 1
        self.needs_sync = True
        return False

    # --- what is asked

    def on_disconnect(self) -> None:
        """The connection is gone, and the subscription with it."""
        self.needs_sync, self.is_syncing, self.needs_own_request = True, False, False

    def begin_sync(self) -> Position | None:
        """The position after which the server should tell; None for its state as it is."""
        self.needs_sync, self.is_syncing = False, True
        self._since = self._oldest_position()
        return self._since

    def _oldest_position(self) -> Position | None:
        positions = []
        for listener in self._readers:
            position = listener.position(self.topic)
            if position is None and self.continuity is not Continuity.COMPLETE:
                # It has nothing, and needs the whole.
                return None
            if position is not None and not listener.is_blocked(self.topic):
                positions.append(position)
        return min(positions, key=lambda each: each.seq, default=None)

    def abort_sync(self) -> None:
        """The question was lost: it is to be asked again."""
        if self.is_syncing:
            self.needs_sync, self.is_syncing = True, False

    def apply_state(self, state: TopicState[MessageT], *, shared: bool) -> bool:
        """Take the answer, which `shared` its room with others'; False to ask again."""
        self.is_syncing = False
        if shared and self._is_unrecovered(state):
            self.needs_sync = self.needs_own_request = True
            return False
        self.needs_own_request = False
        for listener in tuple(self._readers):
            if listener.is_blocked(self.topic):
                continue
            if not self._applies_to(listener, state) or not listener.apply_state(self.topic, state):
                self.needs_sync = True
        return not self.needs_sync

    def _is_unrecovered(self, state: TopicState[MessageT]) -> bool:
        """Whether what was asked for is not there, or was too much beside other answers."""
        since = self._since
        return (
            self.continuity is Continuity.COMPLETE
            and since is not None
            and since.epoch == state.epoch
            and not state.recovered
        )

    def _applies_to(self, listener: Reader[MessageT], state: TopicState[MessageT]) -> bool:
        """What is gone for the one who lacks most may be at hand for another."""
        position, since = listener.position(self.topic), self._since
        if self.continuity is not Continuity.COMPLETE:
            # Who came, or lost its state, after we asked what is new needs the whole.
            return position is not None or since is None
        if state.recovered:
            return True
        if position is None or position.epoch != state.epoch:
            return True
        return since is not None and since.epoch == position.epoch and position.seq <= since.seq

    def fail(self, error: FloorcastError) -> None:
        """Nobody can read it."""
        self.is_syncing = self.needs_sync = False
        for listener in tuple(self._readers):
            listener.end(error.clone())
