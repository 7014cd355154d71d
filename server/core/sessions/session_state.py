"""Keeps one session's recent messages on this node, and encodes them for clients."""

import orjson

from client_sdk.contract import SESSION_NAMESPACE
from server.core.log.channel_state import ChannelState
from server.core.log.entries import Entry, Position
from server.core.log.history import History
from server.core.wire.packets import event_head


class SessionState(ChannelState):
    """The messages of one session; none is merged.

    A session has no event for a gap: messages carry their epoch, and a client that would miss
    some is disconnected, and fetches them.
    """

    __slots__ = ("_event_head", "_head", "revision")

    def __init__(
        self,
        session_id: str,
        head: Position,
        *,
        max_messages: int,
        max_bytes: int,
        max_age_ms: int | None = None,
    ) -> None:
        history = History(max_messages=max_messages, max_bytes=max_bytes, max_age_ms=max_age_ms)
        super().__init__(head, history)
        # The newest session event that this node has handled; 0 if it knows of none.
        self.revision = 0
        self._head = b'{"session_id":%b,"epoch":"' % orjson.dumps(session_id)
        self._event_head = event_head(SESSION_NAMESPACE, "message", self._head)

    def body(self, entry: Entry) -> bytes:
        """A message as JSON: the fields of the entry's data object are inlined."""
        return self._body(self._head, entry)

    def event(self, entry: Entry) -> bytes:
        """A message as an event."""
        return self._body(self._event_head, entry)

    def _body(self, head: bytes, entry: Entry) -> bytes:
        position = entry.position
        return b'%b%b","seq":%d,%b,"ts":%d}' % (
            head,
            position.epoch.encode(),
            position.seq,
            entry.data[1:-1],
            entry.ts_ms,
        )
