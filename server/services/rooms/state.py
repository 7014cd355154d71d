"""Keeps the recent broadcasts of one room on this node, and encodes them for clients."""

from server.core.log.channel_state import ChannelState
from server.core.log.entries import Entry, Position
from server.core.log.history import History

# A broker keeps JSON objects; this one is an event's array, which clients get unchanged.
_OPENING, _CLOSING = b'{"event":', b"}"


def encode_broadcast(event: bytes) -> bytes:
    """The entry of a broadcast, from the JSON array of its name and body."""
    return _OPENING + event + _CLOSING


class RoomState(ChannelState):
    """The broadcasts of one room; as in a session, none is merged or skipped."""

    label = "room"

    __slots__ = ("_prefix",)

    def __init__(
        self,
        namespace: str,
        head: Position,
        *,
        max_messages: int,
        max_bytes: int,
        max_age_ms: int | None = None,
    ) -> None:
        history = History(max_messages=max_messages, max_bytes=max_bytes, max_age_ms=max_age_ms)
        super().__init__(head, history)
        self._prefix = f"42{namespace},".encode()

    def event(self, entry: Entry) -> bytes:
        """A broadcast as an event, without the closing bracket of its array."""
        return self._prefix + entry.data[len(_OPENING) : -len(_CLOSING) - 1]
