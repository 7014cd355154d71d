"""Lets this node follow the topics of the market, for as long as anybody here listens to them."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from client_sdk.contract import MARKET_NAMESPACE
from server.access import Principal
from server.core.log.entries import Entry, Position
from server.core.market.topics import Topic
from server.delivery import Freshness
from server.delivery.channel import Channel
from server.delivery.messages import MessageEncoder
from server.delivery.topic_state import TopicState
from server.services.node_subscriptions import NodeSubscriptions


@dataclass(frozen=True, slots=True)
class SubscribingConfig:
    """How much a connection may have, and what a node keeps of a topic."""

    max_topics: int = 200
    max_reply_bytes: int = 128 * 1024
    backlog_messages: int = 1000
    backlog_bytes: int = 1024 * 1024


class TopicSubscriptions:
    """Follows a topic, and minds whether its feed speaks."""

    def __init__(
        self, config: SubscribingConfig, node_subscriptions: NodeSubscriptions, freshness: Freshness
    ) -> None:
        self._config = config
        self._node_subscriptions = node_subscriptions
        self._freshness = freshness

    async def open(
        self, name: str, topic: Topic, seen: Position | None = None
    ) -> tuple[Channel, list[Entry] | None]:
        """The topic, followed here; and what came after the place that somebody has seen.

        Whoever opens it must `close` it, listened or not, also where this fails.
        """
        channel, missed = await self._node_subscriptions.subscribe(
            name, lambda *state: self._create_state(topic, *state), seen
        )
        if name not in self._freshness:
            self._freshness.open(channel, topic.stream, state_of(channel))
        return channel, missed

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Meanwhile it stays, though nobody listens to it yet."""
        return self._node_subscriptions.hold(name)

    async def close(self, name: str) -> None:
        """Let go of it, unless somebody here listens to it or waits for it."""
        await self._node_subscriptions.release(name, self._freshness.close)

    def _create_state(self, topic: Topic, head: Position, latest: Entry | None) -> TopicState:
        return TopicState(
            topic.stream,
            MessageEncoder(MARKET_NAMESPACE, topic),
            head,
            latest,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
        )


def can_read(principal: Principal, topic: Topic) -> bool:
    """A public topic by its symbol; a private one needs a user who has it for longer than this."""
    if topic.symbol is None:
        return not principal.anonymous
    return principal.may_use_symbol(topic.symbol)


def state_of(channel: Channel) -> TopicState:
    """The view of a topic's channel."""
    view = channel.state
    assert isinstance(view, TopicState)
    return view
