"""Keeps one session's recent messages on this node, and encodes them for clients."""

import orjson

from client_sdk.contract import SESSION_NAMESPACE
from server.core.log.backlog import Lag
from server.core.log.entries import Entry, Position
from server.core.log.history import History
from server.core.market.topic_state import CatchUp, entries_up_to
from server.core.wire.packets import event_head


class SessionState:
    """The messages of one session; none is merged."""

    can_resync = False

    __slots__ = ("_head", "_history", "_position", "merges", "revision")

    def __init__(
        self, session_id: str, head: Position, *, max_messages: int, max_bytes: int
    ) -> None:
        self.merges = False
        self._position = head
        # The newest session event that this node has handled; 0 if it knows of none.
        self.revision = 0
        self._history = History(max_messages=max_messages, max_bytes=max_bytes)
        self._head = b'{"session_id":%b,"epoch":' % orjson.dumps(session_id)

    @property
    def position(self) -> Position:
        """The position of the newest message."""
        return self._position

    def accept(self, entry: Entry) -> bool:
        """Accept the next message; False if it is already known."""
        position = entry.position
        if position.epoch == self._position.epoch and position.seq <= self._position.seq:
            return False
        self._position = position
        self._history.append(entry)
        return True

    def reset(self, head: Position, latest: Entry | None) -> None:
        """Drop the history and restart at `head`."""
        self._position = head
        self._history.clear()

    def since(self, seq: int) -> list[Entry] | None:
        """The messages after `seq`; None if some are gone."""
        if seq == self._position.seq:
            return []
        return self._history.since(seq) if len(self._history) else None

    def body(self, entry: Entry) -> bytes:
        """A message as JSON: the fields of the entry's data object are inlined."""
        position = entry.position
        return b'%b"%b","seq":%d,%b,"ts":%d}' % (
            self._head,
            position.epoch.encode(),
            position.seq,
            entry.data[1:-1],
            entry.ts_ms,
        )

    def event(self, entry: Entry) -> bytes:
        """A message as an event."""
        return event_head(SESSION_NAMESPACE, "message", self.body(entry))

    def prepend_history(self, entries: list[Entry]) -> None:
        """Add older messages from the broker to the history."""
        self._history.prepend(entries_up_to(entries, self._position))

    def catch_up(
        self, lag: Lag, now_ms: int, max_bytes: int, *, until_seq: int | None = None
    ) -> CatchUp:
        """The messages a client lacks, up to `max_bytes`; lost if some are gone."""
        entries = self.since(lag.last_seq)
        if entries is None:
            # A session has no event for a gap: the client must reconnect and fetch.
            return CatchUp([], lag.last_seq, is_lost=True)
        events = []
        reached = lag.last_seq
        for entry in entries:
            if max_bytes <= 0 or reached == until_seq:
                break
            events.append(self.event(entry))
            reached = entry.position.seq
            max_bytes -= len(events[-1])
        return CatchUp(events, reached)

    def status(self, since_ms: int | None) -> bytes | None:
        """None: a session has no feed."""
        return None

    def resync(self) -> bytes | None:
        """None: messages carry their epoch, and a client with a gap is disconnected."""
        return None
