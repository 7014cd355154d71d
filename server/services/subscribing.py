"""Subscribes connections to topics: each topic is judged alone, and answered with its state."""

from collections.abc import Iterable

import orjson

from client_sdk.contract import INTERVALS_MS, ErrorCode, SubscriptionStatus
from server.access import Principal
from server.core.errors import AccessError, FloorcastError, LimitError, RequestError
from server.core.subscriptions import Subscriptions
from server.core.topics import Topic, channel_for
from server.delivery import Fanout, Freshness
from server.delivery.channel import Channel
from server.ports import Broker, Link

TopicReplies = dict[str, dict[str, object]]


class SubscribingService:
    """Who hears what on this node."""

    def __init__(
        self,
        broker: Broker,
        subscriptions: Subscriptions,
        fanout: Fanout,
        freshness: Freshness,
        *,
        max_topics: int,
        max_reply_bytes: int,
    ) -> None:
        self._broker = broker
        self._subscriptions = subscriptions
        self._fanout = fanout
        self._freshness = freshness
        self._max_topics = max_topics
        self._max_reply_bytes = max_reply_bytes
        # Who waits for the state of a topic that is not followed here yet.
        self._openers: dict[str, int] = {}

    def enter(self, connection_id: str, principal: Principal, link: Link) -> None:
        """A connection is there and may subscribe."""
        self._subscriptions.enter(connection_id, principal.org, principal.user_id)
        self._fanout.attach(connection_id, link)

    async def leave(self, connection_id: str) -> None:
        """The connection is gone, and what it listened to with it."""
        self._subscriptions.leave(connection_id)
        for name in self._fanout.detach(connection_id):
            await self._close(name)

    async def subscribe(
        self, connection_id: str, principal: Principal, topics: Iterable[str], interval_ms: int = 0
    ) -> TopicReplies:
        """Subscribe to each topic that may be had; the others say why not."""
        replies: TopicReplies = {}
        room = self._max_reply_bytes
        for name in dict.fromkeys(topics):
            try:
                topic = Topic.parse(name)
                channel = await self._join(connection_id, principal, topic)
            except FloorcastError as error:
                replies[name] = _refused(error)
                continue
            # From here on nothing waits: what is published now comes after this state.
            granted = _granted(interval_ms) if topic.stream.merges else 0
            pace = self._fanout.listen(connection_id, channel, granted)
            subscription = self._subscriptions.pend(connection_id, topic)
            self._subscriptions.listen(connection_id, subscription, granted)
            reply = _connected(channel, pace)
            snapshot = channel.view.snapshot()
            if snapshot is not None:
                room -= len(snapshot)
                if room >= 0:
                    reply["snapshot"] = orjson.Fragment(snapshot)
                else:
                    # Many deep books at once: the rest come as messages, as the client reads.
                    self._fanout.owe_snapshot(connection_id, channel)
            replies[name] = reply
        return replies

    async def unsubscribe(
        self, connection_id: str, principal: Principal, topics: Iterable[str]
    ) -> TopicReplies:
        """End subscriptions; one that was not there is ended just as well."""
        replies: TopicReplies = {}
        for name in dict.fromkeys(topics):
            try:
                topic = Topic.parse(name)
            except FloorcastError as error:
                replies[name] = _refused(error)
                continue
            channel = self._fanout.channel(channel_for(topic, principal.org, principal.user_id))
            if self._subscriptions.end(connection_id, topic) and channel is not None:
                self._fanout.unlisten(connection_id, channel)
                await self._close(channel.name)
            replies[name] = {"status": SubscriptionStatus.DISCONNECTED.value}
        return replies

    def subscriptions(self, connection_id: str) -> TopicReplies:
        """What the connection is subscribed to now."""
        replies: TopicReplies = {}
        for subscription in self._subscriptions.of_connection(connection_id):
            channel = self._fanout.channel(subscription.channel)
            if channel is not None:
                pace = self._fanout.pace(connection_id, channel)
                replies[subscription.topic.name] = _connected(channel, pace)
        return replies

    async def _join(self, connection_id: str, principal: Principal, topic: Topic) -> Channel:
        """The topic, followed here, if this connection may have it."""
        if topic.symbol is not None and not principal.may_use_symbol(topic.symbol):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {topic.name}")
        if topic.symbol is None and principal.anonymous:
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"{topic.name} needs a token")
        name = channel_for(topic, principal.org, principal.user_id)
        self._judge_place(connection_id, name)
        channel = self._fanout.channel(name)
        if channel is not None:
            return channel
        subscription = self._subscriptions.pend(connection_id, topic)
        try:
            channel = await self._open(name, topic)
            self._judge_place(connection_id, name)
        except BaseException:
            # Also where the connection ended while the broker was asked.
            self._subscriptions.fail(subscription)
            await self._close(name)
            raise
        return channel

    def _judge_place(self, connection_id: str, name: str) -> None:
        subscriptions = self._subscriptions
        if connection_id not in subscriptions:
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
        full = 0 < self._max_topics <= subscriptions.count_of(connection_id)
        if full and not subscriptions.listens(connection_id, name):
            raise LimitError(
                ErrorCode.LIMIT_TOPICS,
                f"a connection may have {self._max_topics} topics",
                details={"limit": self._max_topics},
            )

    async def _open(self, name: str, topic: Topic) -> Channel:
        """Follow a topic: hold what comes, fetch its state, go on from there."""
        self._openers[name] = self._openers.get(name, 0) + 1
        self._fanout.prepare(name)
        try:
            await self._broker.watch(name)
            latest = await self._broker.latest(name)
            head = await self._broker.head(name) if latest is None else latest.position
            known = self._fanout.channel(name) is not None
            channel = self._fanout.open(name, topic, head, latest)
            if not known:
                self._freshness.open(channel)
            return channel
        finally:
            self._openers[name] -= 1
            if not self._openers[name]:
                del self._openers[name]
                # Nothing, unless the way to here was cut short.
                self._fanout.abandon(name)

    async def _close(self, name: str) -> None:
        """Let go of a topic that nobody here listens to, or waits for."""
        if name not in self._openers and self._fanout.close(name):
            self._freshness.close(name)
            await self._broker.unwatch(name)


def _granted(interval_ms: int) -> int:
    """The next pace that is offered: never more often than was asked for, if there is one."""
    return next((each for each in INTERVALS_MS if each >= interval_ms), INTERVALS_MS[-1])


def _refused(error: FloorcastError) -> dict[str, object]:
    return {"status": SubscriptionStatus.ERROR.value, "error": error.body()}


def _connected(channel: Channel, pace: int) -> dict[str, object]:
    return {
        "status": SubscriptionStatus.CONNECTED.value,
        **channel.view.position.body(),
        "interval_ms": pace,
        "recovered": False,
        "snapshot": None,
        "missed": [],
    }
