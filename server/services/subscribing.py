"""Subscribes connections to topics: each topic is judged alone, and answered with its state."""

from collections.abc import Iterable

import orjson

from client_sdk.contract import ErrorCode, Stream, SubscriptionStatus
from server.access import Principal
from server.core.errors import AccessError, FloorcastError, LimitError, RequestError
from server.core.subscriptions import Subscriptions
from server.core.topics import Topic, channel_for
from server.delivery.fanout import Fanout
from server.ports import Broker, Entry, Link, Position

TopicReplies = dict[str, dict[str, object]]
_SERVED = frozenset({Stream.PRICE})


class SubscribingService:
    """Who hears what on this node."""

    def __init__(
        self,
        broker: Broker,
        subscriptions: Subscriptions,
        fanout: Fanout,
        *,
        max_topics: int,
    ) -> None:
        self._broker = broker
        self._subscriptions = subscriptions
        self._fanout = fanout
        self._max_topics = max_topics
        self._present: set[str] = set()

    def enter(self, connection_id: str, link: Link) -> None:
        """A connection is there and may subscribe."""
        self._present.add(connection_id)
        self._fanout.attach(connection_id, link)

    async def leave(self, connection_id: str) -> None:
        """The connection is gone, and its subscriptions with it."""
        self._present.discard(connection_id)
        self._fanout.detach(connection_id)
        for channel in self._subscriptions.remove_all(connection_id):
            await self._close(channel)

    async def subscribe(
        self, connection_id: str, principal: Principal, topics: Iterable[str]
    ) -> TopicReplies:
        """Subscribe to each topic that may be had; the others say why not."""
        replies: TopicReplies = {}
        for name in dict.fromkeys(topics):
            try:
                replies[name] = await self._subscribe(connection_id, principal, name)
            except FloorcastError as error:
                replies[name] = {
                    "status": SubscriptionStatus.ERROR.value,
                    "error": error.body(),
                }
        return replies

    async def unsubscribe(
        self, connection_id: str, principal: Principal, topics: Iterable[str]
    ) -> TopicReplies:
        """End subscriptions; one that was not there is ended just as well."""
        replies: TopicReplies = {}
        for name in dict.fromkeys(topics):
            try:
                channel = channel_for(Topic.parse(name), principal.org, principal.user_id)
            except FloorcastError as error:
                replies[name] = {
                    "status": SubscriptionStatus.ERROR.value,
                    "error": error.body(),
                }
                continue
            self._subscriptions.remove(connection_id, channel)
            await self._close(channel)
            replies[name] = {"status": SubscriptionStatus.DISCONNECTED.value}
        return replies

    async def subscriptions(self, connection_id: str) -> TopicReplies:
        """What the connection is subscribed to now."""
        replies: TopicReplies = {}
        for channel in self._subscriptions.channels_of(connection_id):
            head = await self._broker.head(channel)
            # Only public topics are served yet, and a public topic's channel is its name.
            replies[channel] = _connected(head)
        return replies

    async def _subscribe(
        self, connection_id: str, principal: Principal, name: str
    ) -> dict[str, object]:
        topic = Topic.parse(name)
        if topic.stream not in _SERVED:
            raise RequestError(
                ErrorCode.TOPIC_UNKNOWN, f"the stream {topic.stream.value} is not served yet"
            )
        if topic.symbol is not None and not principal.may_use_symbol(topic.symbol):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {topic.name}")
        channel = channel_for(topic, principal.org, principal.user_id)
        await self._broker.watch(channel)
        latest = await self._broker.latest(channel)
        head = await self._broker.head(channel)
        # From here to the answer nothing may wait: what is published now either went out
        # before, or comes after the snapshot.
        if connection_id not in self._present:
            await self._close(channel)
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
        if 0 < self._max_topics <= self._subscriptions.count_of(
            connection_id
        ) and not self._subscriptions.listens(connection_id, channel):
            await self._close(channel)
            raise LimitError(
                ErrorCode.LIMIT_TOPICS,
                f"a connection may have {self._max_topics} topics",
                details={"limit": self._max_topics},
            )
        self._fanout.open(channel, topic)
        self._fanout.flush()
        self._subscriptions.add(connection_id, channel)
        return {**_connected(head), "snapshot": self._snapshot(channel, latest)}

    def _snapshot(self, channel: str, latest: Entry | None) -> orjson.Fragment | None:
        if latest is None:
            return None
        prev = latest.position.seq - 1
        return orjson.Fragment(self._fanout.encoder(channel).body(latest, "snapshot", prev))

    async def _close(self, channel: str) -> None:
        """Let the broker forget a channel that nobody here listens to."""
        if not self._subscriptions.subscribers(channel):
            self._fanout.close(channel)
            await self._broker.unwatch(channel)


def _connected(head: Position) -> dict[str, object]:
    return {
        "status": SubscriptionStatus.CONNECTED.value,
        "epoch": head.epoch,
        "seq": head.seq,
        "interval_ms": 0,
        "recovered": False,
        "snapshot": None,
        "missed": [],
    }
