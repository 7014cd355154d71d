"""Derives views on this node, each once, while somebody is subscribed to it."""

from client_sdk.contract import MARKET_NAMESPACE
from server.core.market.book_views import DerivedBook
from server.core.market.messages import MessageEncoder
from server.core.market.topic_state import TopicState
from server.core.market.topics import Topic
from server.core.market.view_state import ViewState
from server.core.market.views import DepthView
from server.delivery import Hub
from server.delivery.channel import Channel
from server.services.market.freshness import Freshness
from server.services.market.subscribing_config import SubscribingConfig


class Views:
    """The open views of this node; each follows the channel of its source."""

    def __init__(self, config: SubscribingConfig, hub: Hub, freshness: Freshness) -> None:
        self._config = config
        self._hub = hub
        self._freshness = freshness
        # By the name of the view.
        self._sources: dict[str, Channel] = {}

    def source_of(self, name: str) -> str | None:
        """The source of an open view; None if there is no such view."""
        source = self._sources.get(name)
        return None if source is None else source.name

    def open(self, topic: Topic, source: Channel) -> Channel:
        """Derive a view from its source, unless this node does it already."""
        name = topic.name
        channel = self._hub.channel(name)
        if channel is None:
            channel = self._derive(name, topic, source)
        self.settle(channel)
        return channel

    def settle(self, channel: Channel) -> None:
        """Bring a view to its source's position before a client joins; a no-op for others."""
        source = self._sources.get(channel.name)
        if source is not None:
            self._hub.settle(channel, source)

    def close(self, name: str) -> bool:
        """Stop deriving an open view; False if it has subscribers."""
        if not self._hub.close(name, self._sources[name]):
            return False
        del self._sources[name]
        self._freshness.close(name)
        return True

    def _derive(self, name: str, topic: Topic, source: Channel) -> Channel:
        source_state = source.state
        assert isinstance(source_state, TopicState)
        assert isinstance(topic.view, DepthView)
        derived = DerivedBook(name, topic.view, source_state)
        state = ViewState(
            topic.stream,
            MessageEncoder(MARKET_NAMESPACE, topic),
            source_state.position,
            derived.latest,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
            max_age_ms=self._config.backlog_age_ms,
        )
        state.set_trading_state(source_state.trading_state)
        channel = self._hub.open_derived(name, state, source, derived)
        self._sources[name] = source
        self._freshness.open(channel, topic.stream, state)
        return channel
