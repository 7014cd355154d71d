"""Encodes a market message once for all its recipients."""

from client_sdk.contract import FeedState, Stream
from server.core.log.entries import Entry, Position
from server.core.market.source_time import split_source_ts
from server.core.market.topics import Topic
from server.core.market.views import BarsView
from server.core.wire.packets import event_head

# A heartbeat's data: empty, in the shape of its stream.
_EMPTY_DATA = {Stream.ORDERBOOK: b'{"bids":[],"asks":[]}', Stream.TRADES: b'{"trades":[]}'}


class MessageEncoder:
    """Encodes the messages of one topic; constant parts are encoded once.

    Events lack their closing bracket, since an offset may follow (see `Offsets.frame`).
    """

    __slots__ = ("_empty_data", "_event", "_head", "_namespace", "_prefix")

    def __init__(self, namespace: str, topic: Topic) -> None:
        self._namespace = namespace
        self._event = topic.stream.event
        self._empty_data = _EMPTY_DATA.get(topic.stream, b"{}")
        if isinstance(topic.view, BarsView):
            self._empty_data = b'{"bars":[]}'
        symbol = "null" if topic.symbol is None else f'"{topic.symbol}"'
        view = "" if topic.view is None else f'"view":"{topic.view.text}",'
        # These need no JSON escaping: `Topic.parse` rejects all other characters.
        self._head = f'{{"stream":"{topic.stream.value}","symbol":{symbol},{view}'.encode()
        # The constant start of each event.
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
        """A message as JSON; `data` may begin with the venue's time."""
        extra = b',"merged":%d,"age_ms":%d' % (merged, age_ms) if merged > 1 else b""
        source_ts, data = split_source_ts(data)
        return b'%b"type":"%b","epoch":"%b","seq":%d,"prev":%d,"ts":%d,%b"data":%b%b}' % (
            self._head,
            kind.encode(),
            position.epoch.encode(),
            position.seq,
            prev,
            ts_ms,
            b"" if source_ts is None else b'"source_ts":%b,' % source_ts,
            data,
            extra,
        )

    def event(self, body: bytes) -> bytes:
        """A message body as an event."""
        return self._prefix + body

    def entry(self, entry: Entry) -> bytes:
        """One entry as an event, for a client that has the entry before it."""
        position = entry.position
        return self._prefix + self.body(
            position,
            kind=entry.kind,
            prev=entry.prev,
            ts_ms=entry.ts_ms,
            data=entry.data,
        )

    def heartbeat(self, position: Position, now_ms: int) -> bytes:
        """A heartbeat event, for a client that has the newest entry."""
        return self._prefix + self.body(
            position, kind="heartbeat", prev=position.seq, ts_ms=now_ms, data=self._empty_data
        )

    def status(self, state: FeedState, since_ms: int | None) -> bytes:
        """The feed's state as an event."""
        since = b"" if since_ms is None else b',"since_ms":%d' % since_ms
        body = b'%b"state":"%b"%b}' % (self._head, state.value.encode(), since)
        return event_head(self._namespace, "status", body)
