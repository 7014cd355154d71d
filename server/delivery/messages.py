"""Builds the bytes of a market message once, for every client that is to receive it."""

from client_sdk.contract import FeedState, Stream
from server.core.log.entries import Entry, Position
from server.core.market.topics import Topic
from server.core.wire.packets import event_head

# What a heartbeat says besides its position: nothing, in the shape of its stream.
_EMPTY_DATA = {Stream.ORDERBOOK: b'{"bids":[],"asks":[]}', Stream.TRADES: b'{"trades":[]}'}


class MessageEncoder:
    """Encodes the messages of one topic; what never changes is encoded in advance.

    Events come without their closing bracket: for most clients an offset follows.
    """

    __slots__ = ("_empty_data", "_event", "_head", "_kinds", "_namespace", "_prefix")

    def __init__(self, namespace: str, topic: Topic) -> None:
        self._namespace = namespace
        self._event = topic.stream.event
        self._empty_data = _EMPTY_DATA.get(topic.stream, b"{}")
        symbol = "null" if topic.symbol is None else f'"{topic.symbol}"'
        # A symbol's alphabet needs no escaping in JSON; `Topic.parse` lets nothing else in.
        self._head = f'{{"stream":"{topic.stream.value}","symbol":{symbol},'.encode()
        # Every update of a turn begins alike, up to its epoch.
        self._prefix = event_head(namespace, self._event, b"")

    def body(
        self,
        position: Position,
        *,
        kind: str,
        prev: int,
        ts_ms: int,
        data: bytes,
        merged: int = 1,
        age_ms: int = 0,
    ) -> bytes:
        """The message as JSON."""
        extra = b',"merged":%d,"age_ms":%d' % (merged, age_ms) if merged > 1 else b""
        return b'%b"type":"%b","epoch":"%b","seq":%d,"prev":%d,"ts":%d,"data":%b%b}' % (
            self._head,
            kind.encode(),
            position.epoch.encode(),
            position.seq,
            prev,
            ts_ms,
            data,
            extra,
        )

    def event(self, body: bytes) -> bytes:
        """A message's body as the event that carries it."""
        return self._prefix + body

    def entry(self, entry: Entry) -> bytes:
        """One entry as it is, for a client that has the one before it."""
        position = entry.position
        return self._prefix + self.body(
            position,
            kind=entry.kind,
            prev=position.seq - 1,
            ts_ms=entry.ts_ms,
            data=entry.data,
        )

    def heartbeat(self, position: Position, now_ms: int) -> bytes:
        """The head of a quiet topic, for a client that has everything."""
        return self._prefix + self.body(
            position, kind="heartbeat", prev=position.seq, ts_ms=now_ms, data=self._empty_data
        )

    def status(self, state: FeedState, since_ms: int | None) -> bytes:
        """Whether the topic's feed speaks."""
        since = b"" if since_ms is None else b',"since_ms":%d' % since_ms
        body = b'%b"state":"%b"%b}' % (self._head, state.value.encode(), since)
        return event_head(self._namespace, "status", body)
