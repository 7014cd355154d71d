"""Derives views on this node, each once, while somebody is subscribed to it."""

from functools import partial

from client_sdk.contract import MARKET_NAMESPACE
from server.core.limits.shares import Owner
from server.core.market.bar_views import BarsReplica, DerivedBars
from server.core.market.bars import BarSeries
from server.core.market.book_views import DerivedBook
from server.core.market.messages import MessageEncoder
from server.core.market.topic_state import NewReplica, TopicState
from server.core.market.topics import Topic
from server.core.market.view_state import ViewState
from server.core.market.views import DepthView
from server.delivery import Hub
from server.delivery.channel import Channel
from server.services.market.freshness import Freshness
from server.services.market.subscribing_config import SubscribingConfig
from server.services.market.view_shares import ViewShares


class Views:
    """The open views of this node; each follows the channel of its source."""

    def __init__(self, config: SubscribingConfig, hub: Hub, freshness: Freshness) -> None:
        self._config = config
        self._hub = hub
        self._freshness = freshness
        # By the name of the view.
        self._sources: dict[str, Channel] = {}
        self._bars: dict[str, DerivedBars] = {}
        self._shares = ViewShares()

    def source_of(self, name: str) -> str | None:
        """The source of an open view; None if there is no such view."""
        source = self._sources.get(name)
        return None if source is None else source.name

    def open(
        self, topic: Topic, source: Channel, owner: Owner, series: BarSeries | None = None
    ) -> Channel:
        """Derive a view from its source, unless this node does it already.

        A view of bars needs its series, at the position of the source. Raises `LimitError` if
        this owner may open no more views.
        """
        name = topic.name
        channel = self._hub.channel(name)
        if channel is None:
            self._shares.add(owner, topic)
            channel = self._derive(name, topic, source, series)
        self.settle(channel)
        return channel

    def series(self, name: str) -> BarSeries | None:
        """The series of an open view of bars; None if there is none, or trades are missing."""
        derived = self._bars.get(name)
        return None if derived is None or derived.is_incomplete else derived.series

    def incomplete(self) -> list[str]:
        """The views of bars in which trades are missing after a reset."""
        return [name for name, each in self._bars.items() if each.is_incomplete]

    def replace(self, name: str, series: BarSeries) -> None:
        """Restart a view of bars with a series, at the position of its source."""
        if name in self._bars:
            self._hub.reset(self._bars[name].replace(series))

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
        self._shares.remove(name)
        self._bars.pop(name, None)
        self._freshness.close(name)
        return True

    def _derive(
        self, name: str, topic: Topic, source: Channel, series: BarSeries | None
    ) -> Channel:
        source_state = source.state
        assert isinstance(source_state, TopicState)
        derived: DerivedBook | DerivedBars
        new_replica: NewReplica | None = None
        if isinstance(topic.view, DepthView):
            derived = DerivedBook(name, topic.view, source_state)
        else:
            assert series is not None
            derived = self._bars[name] = DerivedBars(name, series, source_state)
            new_replica = partial(BarsReplica, series.max_age_ms)
        state = ViewState(
            topic.stream,
            MessageEncoder(MARKET_NAMESPACE, topic),
            source_state.position,
            derived.latest,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
            max_age_ms=self._config.backlog_age_ms,
            new_replica=new_replica,
        )
        state.set_trading_state(source_state.trading_state)
        channel = self._hub.open_derived(name, state, source, derived)
        self._sources[name] = source
        self._freshness.open(channel, topic.stream, state)
        return channel
