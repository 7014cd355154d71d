"""Subscribes this node to market topics while its clients need them."""

from contextlib import AbstractContextManager

from client_sdk.contract import MARKET_NAMESPACE
from server.access import Principal
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Entry, Position
from server.core.market.bars import BarSeries
from server.core.market.instruments import InstrumentTable
from server.core.market.messages import MessageEncoder
from server.core.market.topic_state import TopicState
from server.core.market.topics import Topic
from server.core.market.views import BarsView
from server.delivery import Hub
from server.delivery.channel import Channel
from server.services.market.freshness import Freshness
from server.services.market.past import Newest, Past
from server.services.market.series_loader import SeriesLoader
from server.services.market.subscribing_config import SubscribingConfig
from server.services.market.views import Views
from server.services.node_subscriptions import Missed, NodeSubscriptions

_ALL = 1 << 30


class TopicSubscriptions:
    """The topics that this node receives, each monitored for freshness."""

    def __init__(
        self,
        config: SubscribingConfig,
        node_subscriptions: NodeSubscriptions,
        freshness: Freshness,
        hub: Hub,
        instruments: InstrumentTable,
        loader: SeriesLoader,
    ) -> None:
        self._config = config
        self._node_subscriptions = node_subscriptions
        self._freshness = freshness
        self._instruments = instruments
        self._loader = loader
        self._hub = hub
        self._views = Views(config, hub, freshness)

    async def open(
        self, name: str, topic: Topic, seen: Position | None = None, *, owner: Owner = SERVER
    ) -> tuple[Channel, Missed | None]:
        """Receive a topic; returns its channel and the entries after `seen`, None if unknown.

        A view counts to its owner; raises `LimitError` if this one may open no more of them.

        You must call `close` afterwards, also if this raises and if a client has subscribed.
        """
        if topic.view is not None:
            return await self._open_view(topic, seen, owner), None
        channel, missed = await self._node_subscriptions.subscribe(
            name, lambda head, latest: self._create_state(topic, head, latest), seen
        )
        if name not in self._freshness:
            self._freshness.open(channel, topic.stream, state_of(channel))
        return channel, missed

    async def _open_view(self, topic: Topic, seen: Position | None, owner: Owner) -> Channel:
        source = topic.source
        with self.hold(source.name):
            try:
                channel, _ = await self.open(source.name, source, seen)
                series = None
                if self._views.source_of(topic.name) is None:
                    series = await self._load(topic, channel)
                return self._views.open(topic, channel, owner, series)
            except BaseException:
                await self.close(source.name)
                raise

    async def series(self, topic: Topic) -> BarSeries:
        """The candles of a view of bars, up to the newest trade."""
        known = self._views.series(topic.name)
        if known is not None:
            return known
        source = topic.source
        with self.hold(source.name):
            try:
                channel, _ = await self.open(source.name, source)
                series = await self._load(topic, channel)
                assert series is not None
            except BaseException:
                await self.close(source.name)
                raise
        await self.close(source.name)
        return series

    async def rebuild_views(self) -> None:
        """Load the views of bars in which trades are missing after a reset."""
        for name in self._views.incomplete():
            topic = Topic.parse(name)
            channel = self._hub.channel(topic.source.name)
            if channel is not None:
                with self.hold(name):
                    series = await self._load(topic, channel)
                    assert series is not None
                    self._views.replace(name, series)
                await self.close(name)

    async def _load(self, topic: Topic, source: Channel) -> BarSeries | None:
        """The series of a view of bars, None for another one; the source must be held."""
        if not isinstance(topic.view, BarsView):
            return None
        assert topic.symbol is not None
        interval = topic.view.interval
        return (await self._loader.load(source, topic.symbol, [interval]))[interval]

    def settle(self, channel: Channel) -> None:
        """Bring a view to the position of its source before a client joins; else a no-op."""
        self._views.settle(channel)

    async def newest(self, name: str, past: Past) -> Newest | None:
        """The kept messages of an open topic that may be of interest; None if none are asked for.

        The topic must be held.
        """
        if not past.needs_newest:
            return None
        # How many there are since a time is unknown: all that are kept.
        limit = past.last if past.since is None else _ALL
        return Newest(await self._node_subscriptions.newest(name, limit))

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Keep the topic open inside the context, even without subscribers."""
        return self._node_subscriptions.hold(name)

    async def close(self, name: str) -> None:
        """Stop receiving the topic, unless it has subscribers or is held."""
        source = self._views.source_of(name)
        if source is not None:
            if not self._node_subscriptions.is_held(name) and self._views.close(name):
                await self.close(source)
            return
        await self._node_subscriptions.release(name, self._freshness.close)

    def _create_state(self, topic: Topic, head: Position, latest: Entry | None) -> TopicState:
        state = TopicState(
            topic.stream,
            MessageEncoder(MARKET_NAMESPACE, topic),
            head,
            latest,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
            max_age_ms=self._config.backlog_age_ms,
        )
        known = None if topic.symbol is None else self._instruments.get(topic.symbol)
        state.set_trading_state(None if known is None else known.trading_state)
        return state


def can_read(principal: Principal, topic: Topic) -> bool:
    """Check if a token allows a topic; an anonymous user has no private topics."""
    if topic.symbol is None:
        return not principal.anonymous
    return principal.may_use_symbol(topic.symbol)


def state_of(channel: Channel) -> TopicState:
    """The state of a topic's channel."""
    state = channel.state
    assert isinstance(state, TopicState)
    return state
