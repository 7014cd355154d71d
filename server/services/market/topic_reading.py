"""Reads a topic once, without a subscription: its head, its snapshot and its history."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from client_sdk.contract import ErrorCode, FeedState
from server.access import AuthorizationRule, Principal
from server.core.errors import AccessError, RequestError
from server.core.log.entries import Entry, Position
from server.core.market.topics import Topic, channel_for
from server.delivery.channel import Channel
from server.ports import Broker
from server.services.market.topic_subscriptions import TopicSubscriptions, can_read, state_of
from server.services.market.view_shares import view_owner

# As many as a history can have by default; one that has more is read from its end.
_MAX_ENTRIES = 1_000


@dataclass(frozen=True, slots=True)
class TopicHead:
    """A topic as it is now; the snapshot is a message as JSON, None if its data was lost."""

    name: str
    channel: str
    state: FeedState
    since_ms: int | None
    position: Position
    snapshot: bytes | None


@dataclass(frozen=True, slots=True)
class TopicHistory:
    """Messages as JSON, oldest first.

    Unless `complete`, messages between the requested position and the first one are gone.
    """

    head: Position
    messages: list[bytes]
    complete: bool
    has_more: bool


class TopicReading:
    """Reads topics for clients that are not connected.

    Raises `AccessError` if the principal may not read a topic, and `RequestError` if nobody has
    ever published there.
    """

    def __init__(
        self,
        topics: TopicSubscriptions,
        broker: Broker,
        rule: AuthorizationRule | None = None,
    ) -> None:
        self._topics = topics
        self._broker = broker
        self._rule = rule or AuthorizationRule()

    async def head(self, principal: Principal, name: str) -> TopicHead:
        """The topic's position, feed state and snapshot."""
        async with self._open(principal, name) as (topic, channel):
            state, since_ms = state_of(channel), channel.stale_since_ms
            return TopicHead(
                topic.name,
                channel.name,
                state.feed_state(since_ms),
                since_ms,
                state.position,
                state.snapshot(),
            )

    async def history(
        self, principal: Principal, name: str, after_seq: int | None, limit: int
    ) -> TopicHistory:
        """The messages after a seq, or the newest ones.

        A merged stream has no history: its snapshot stands for all before it.
        """
        async with self._open(principal, name) as (_, channel):
            state = state_of(channel)
            head = state.position
            if state.merges:
                snapshot = None if head.seq <= (after_seq or 0) else state.snapshot()
                messages = [] if snapshot is None else [snapshot]
                return TopicHistory(head, messages, complete=True, has_more=False)
            entries, complete = await self._entries(channel.name, head, after_seq, limit)
            bodies = [state.body(each) for each in entries[:limit]]
            return TopicHistory(head, bodies, complete, has_more=len(entries) > limit)

    async def _entries(
        self, channel: str, head: Position, after_seq: int | None, limit: int
    ) -> tuple[list[Entry], bool]:
        """The entries after a seq, and whether there are all of them."""
        if after_seq is None:
            return await self._broker.before(channel, None, limit), True
        if after_seq >= head.seq:
            return [], True
        entries = await self._broker.since(channel, Position(head.epoch, after_seq))
        if entries is not None:
            return entries, True
        kept = await self._broker.before(channel, None, _MAX_ENTRIES)
        return [each for each in kept if each.position.seq > after_seq], False

    @asynccontextmanager
    async def _open(self, principal: Principal, name: str) -> AsyncIterator[tuple[Topic, Channel]]:
        topic = Topic.parse(name)
        if not can_read(principal, topic):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {topic.name}")
        await self._rule.check_subscribe(principal, topic.source.name)
        channel_name = channel_for(topic, principal.org, principal.user_id)
        try:
            channel, _ = await self._topics.open(channel_name, topic, owner=view_owner(principal))
            with self._topics.hold(channel_name):
                if not channel.state.position.seq:
                    raise RequestError(
                        ErrorCode.TOPIC_UNKNOWN, f"nobody has published to {topic.name} yet"
                    )
                yield topic, channel
        finally:
            await self._topics.close(channel_name)
