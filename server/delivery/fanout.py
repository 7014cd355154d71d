"""Brings each published entry to every subscriber of this node: one encoding, one write each."""

import logging
from collections.abc import Callable

from client_sdk.contract import MARKET_NAMESPACE, ErrorCode
from server.core.errors import LimitError
from server.core.frames import deflate_text_frames
from server.core.subscriptions import Subscriptions
from server.core.topics import Topic
from server.delivery.messages import MessageEncoder
from server.ports import Entry, Link

logger = logging.getLogger(__name__)


class Fanout:
    """Joins what is published within one turn of the loop into one write a client.

    An idle server sends at once at the end of the turn; a busy one makes one system call for
    many messages. Clients of one topic that wait for the same frames share the joined bytes.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        *,
        schedule: Callable[[Callable[[], None]], object],
        max_buffered_bytes: int,
    ) -> None:
        self._subscriptions = subscriptions
        self._schedule = schedule
        self._max_buffered_bytes = max_buffered_bytes
        self._links: dict[str, Link] = {}
        self._encoders: dict[str, MessageEncoder] = {}
        self._waiting: dict[str, list[bytes]] = {}
        self._scheduled = False

    def attach(self, connection_id: str, link: Link) -> None:
        """From now on this connection can be written to."""
        self._links[connection_id] = link

    def detach(self, connection_id: str) -> None:
        """The connection has ended."""
        self._links.pop(connection_id, None)

    @property
    def link_count(self) -> int:
        """How many connections can be written to."""
        return len(self._links)

    def open(self, channel: str, topic: Topic) -> None:
        """The channel's first subscriber comes."""
        if channel not in self._encoders:
            self._encoders[channel] = MessageEncoder(MARKET_NAMESPACE, topic)

    def close(self, channel: str) -> None:
        """The channel's last subscriber has gone."""
        self._encoders.pop(channel, None)
        self._waiting.pop(channel, None)

    def encoder(self, channel: str) -> MessageEncoder:
        """How the messages of an open channel are encoded."""
        return self._encoders[channel]

    def deliver(self, entry: Entry) -> None:
        """Take one entry, in the order of its channel."""
        encoder = self._encoders.get(entry.channel)
        if encoder is None:
            return
        frame = encoder.frame(entry, entry.position.seq - 1)
        waiting = self._waiting.get(entry.channel)
        if waiting is None:
            self._waiting[entry.channel] = [frame]
        else:
            waiting.append(frame)
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self.flush)

    def flush(self) -> None:
        """Write what waits; also called before somebody subscribes, who must not get it."""
        self._scheduled = False
        waiting, self._waiting = self._waiting, {}
        limit = self._max_buffered_bytes
        links = self._links
        behind: list[Link] = []
        for channel, frames in waiting.items():
            joined = frames[0] if len(frames) == 1 else b"".join(frames)
            deflated: bytes | None = None
            for connection_id in self._subscriptions.subscribers(channel):
                link = links.get(connection_id)
                if link is None:
                    continue
                if link.buffered_bytes > limit:
                    behind.append(link)
                    continue
                if link.deflates:
                    deflated = deflated or deflate_text_frames(joined)
                    link.write(deflated)
                else:
                    link.write(joined)
        # Ended afterwards: ending changes the subscriptions that are walked above.
        for link in behind:
            link.end(
                LimitError(ErrorCode.SERVER_OVERLOADED, "the client reads too slowly"),
                reconnect=True,
            )
