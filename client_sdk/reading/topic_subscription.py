"""A topic or session with all who read it here: one subscription serves them."""

from collections.abc import Sequence
from typing import Generic

from client_sdk.contract import Position
from client_sdk.errors import FloorcastError
from client_sdk.reading.gaps import Chain
from client_sdk.reading.readers import HeardT, Listener, State
from client_sdk.stats import Counters


class Subject(Generic[HeardT]):
    """Knows what to ask the server for, so that nobody here lacks anything."""

    def __init__(self, key: str, chain: Chain, counters: Counters) -> None:
        self.key = key
        self.chain = chain
        self._counters = counters
        self._listeners: list[Listener[HeardT]] = []
        # Whether the server has to be asked; whether it is being asked; whether an answer of its
        # own is needed, because it was too much for one that it had to share.
        self.lacks = True
        self.asked = False
        self.alone = False
        self._since: Position | None = None

    @property
    def listeners(self) -> Sequence[Listener[HeardT]]:
        """Who reads it."""
        return self._listeners

    def add(self, listener: Listener[HeardT], position: Position | None = None) -> None:
        """Somebody reads it from now on, or from a position."""
        listener.follow(self.key, self.chain, position)
        self._listeners.append(listener)
        self.lacks = True

    def remove(self, listener: Listener[HeardT]) -> None:
        """Somebody reads it no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    # --- what comes

    def hear(self, message: HeardT) -> bool:
        """Take a message; False where the server has to be asked for what is missing before it."""
        complete = True
        for listener in self._listeners:
            if not listener.hear(self.key, message):
                complete = False
        if complete or self.asked or self.lacks:
            # Whoever is being asked answers for this gap too.
            return True
        self._counters.gaps_seen += 1
        self.lacks = True
        return False

    # --- what is asked

    def lose(self) -> None:
        """The connection is gone, and the subscription with it."""
        self.lacks, self.asked, self.alone = True, False, False

    def ask(self) -> Position | None:
        """The position after which the server should tell; None for its state as it is."""
        self.lacks, self.asked = False, True
        self._since = self._oldest()
        return self._since

    def _oldest(self) -> Position | None:
        positions = []
        for listener in self._listeners:
            position = listener.position(self.key)
            if position is None and self.chain is not Chain.KEPT:
                # It has nothing, and needs the whole.
                return None
            if position is not None and not listener.is_waiting(self.key):
                positions.append(position)
        return min(positions, key=lambda each: each.seq, default=None)

    def unanswered(self) -> None:
        """The question was lost: it is to be asked again."""
        if self.asked:
            self.lacks, self.asked = True, False

    def answer(self, state: State[HeardT], *, shared: bool) -> bool:
        """Take the answer, which `shared` its room with others'; False to ask again."""
        self.asked = False
        if shared and self._is_refused(state):
            self.lacks = self.alone = True
            return False
        self.alone = False
        for listener in tuple(self._listeners):
            if listener.is_waiting(self.key):
                continue
            if not self._was_asked_for(listener, state) or not listener.state(self.key, state):
                self.lacks = True
        return not self.lacks

    def _is_refused(self, state: State[HeardT]) -> bool:
        """Whether what was asked for is not there, or was too much beside other answers."""
        since = self._since
        return (
            self.chain is Chain.KEPT
            and since is not None
            and since.epoch == state.epoch
            and not state.recovered
        )

    def _was_asked_for(self, listener: Listener[HeardT], state: State[HeardT]) -> bool:
        """What is gone for the one who lacks most may be at hand for another."""
        position, since = listener.position(self.key), self._since
        if self.chain is not Chain.KEPT:
            # Who came, or lost its state, after we asked what is new needs the whole.
            return position is not None or since is None
        if state.recovered:
            return True
        if position is None or position.epoch != state.epoch:
            return True
        return since is not None and since.epoch == position.epoch and position.seq <= since.seq

    def fail(self, error: FloorcastError) -> None:
        """Nobody can read it."""
        self.asked = self.lacks = False
        for listener in tuple(self._listeners):
            listener.end(error.again())
