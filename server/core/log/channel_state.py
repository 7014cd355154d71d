"""Keeps what a channel is now on this node: the base of `TopicState` and `SessionState`."""

from dataclasses import dataclass

from server.core.log.backlog import Lag
from server.core.log.entries import Entry, Position
from server.core.log.history import History


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Events that bring a client to the seq `reached`, and how they were made."""

    events: list[bytes]
    reached: int
    merged: int = 0
    is_snapshot: bool = False
    # Entries are gone and no event can say so: the client must reconnect.
    is_lost: bool = False


class ChannelState:
    """The state of one channel: what the hub needs to serve its clients, and to catch them up.

    A subclass implements `event`. By itself it merges nothing and announces no gap.

    `position` and `since` must agree: if they do not, clients see gaps. For example, after
    `accept` of seq 8, `position.seq` is 8 and `since(7)` is that entry or None, never [].
    """

    __slots__ = ("_history", "position")

    # Whether a newer entry replaces older ones, so that a client may skip some.
    merges: bool = False
    # Whether an event tells clients of a reset; if not, they are disconnected.
    can_resync: bool = False
    # Whether its entries are derived from another channel, whose positions they have.
    is_derived: bool = False
    # What its messages are counted under.
    label: str = "session"

    def __init__(self, head: Position, history: History | None) -> None:
        # The position of the newest entry.
        self.position = head
        # The newest entries; None if clients never need them.
        self._history = history

    def accept(self, entry: Entry) -> bool:
        """Accept the next entry; False if it is already known."""
        position = entry.position
        if position.seq <= self.position.seq and position.epoch == self.position.epoch:
            return False
        self.position = position
        if self._history is not None:
            for evicted in self._history.append(entry):
                self._evict(evicted)
        return True

    def reset(self, head: Position, latest: Entry | None) -> None:
        """Drop the history and restart at `head`, with `latest` as the state."""
        self.position = head
        if self._history is not None:
            self._history.clear()

    def event(self, entry: Entry) -> bytes:
        """An entry as an event, for a client that has the entry before it."""
        raise NotImplementedError

    def since(self, seq: int) -> list[Entry] | None:
        """The entries after `seq`; None if some are gone."""
        if seq == self.position.seq:
            return []
        if self._history is None or not len(self._history):
            return None
        return self._history.since(seq)

    @property
    def history_length(self) -> int:
        """How many entries are kept."""
        return 0 if self._history is None else len(self._history)

    def expire(self, now_ms: int) -> None:
        """Drop entries that are too old; the newest stays."""
        if self._history is not None:
            for evicted in self._history.expire(now_ms):
                self._evict(evicted)

    def prepend_history(self, entries: list[Entry]) -> None:
        """Add older entries from the broker to the history; no-op if `merges`."""
        if self._history is None or self.merges or not entries:
            return
        if entries[0].position.epoch == self.position.epoch:
            seq = self.position.seq
            self._history.prepend([each for each in entries if each.position.seq <= seq])

    def catch_up(
        self, lag: Lag, now_ms: int, max_bytes: int, *, until_seq: int | None = None
    ) -> CatchUp:
        """What a client with this lag lacks, or the first part up to `max_bytes`.

        Unless `merges`, it must not go beyond `until_seq`: a push follows that entry.
        """
        entries = self.since(lag.last_seq)
        if entries is None:
            return CatchUp([], lag.last_seq, is_lost=True)
        return self._replay(entries, lag.last_seq, max_bytes, until_seq)

    @property
    def is_halted(self) -> bool:
        """Whether its feed may be silent, because nothing is traded."""
        return False

    def status(self, since_ms: int | None) -> bytes | None:
        """The feed's state as an event; None if there is no feed."""
        return None

    def resync(self) -> bytes | None:
        """An event that announces a reset; None if the entries themselves show it."""
        return None

    def _evict(self, entry: Entry) -> None:
        """Handle an entry that the history no longer has."""

    def _replay(
        self, entries: list[Entry], reached: int, max_bytes: int, until_seq: int | None
    ) -> CatchUp:
        events: list[bytes] = []
        for entry in entries:
            if max_bytes <= 0 or reached == until_seq:
                break
            events.append(self.event(entry))
            reached = entry.position.seq
            max_bytes -= len(events[-1])
        return CatchUp(events, reached)
