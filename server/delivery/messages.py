"""Builds the bytes of a market message once, for every client that is to receive it."""

from server.core.frames import text_frame
from server.core.packets import event_packet
from server.core.topics import Topic
from server.ports import Entry


class MessageEncoder:
    """Encodes the entries of one topic; what never changes is encoded in advance."""

    __slots__ = ("_event", "_head", "_namespace")

    def __init__(self, namespace: str, topic: Topic) -> None:
        self._namespace = namespace
        self._event = topic.stream.event
        symbol = "null" if topic.symbol is None else f'"{topic.symbol}"'
        # A symbol's alphabet needs no escaping in JSON; `Topic.parse` lets nothing else in.
        self._head = f'{{"stream":"{topic.stream.value}","symbol":{symbol},"type":'.encode()

    def body(self, entry: Entry, kind: str, prev: int) -> bytes:
        """The message as JSON."""
        position = entry.position
        return b'%b"%b","epoch":"%b","seq":%d,"prev":%d,"ts":%d,"data":%b}' % (
            self._head,
            kind.encode(),
            position.epoch.encode(),
            position.seq,
            prev,
            entry.ts_ms,
            entry.data,
        )

    def frame(self, entry: Entry, prev: int) -> bytes:
        """The message as the WebSocket frame that carries it."""
        body = self.body(entry, "update", prev)
        return text_frame(event_packet(self._namespace, self._event, body))
