"""The market without sockets: broker, hub and services, with callbacks run by the test."""

from collections.abc import Callable

from client_sdk.contract import Stream
from server.access import Principal
from server.brokers import MemoryBroker, MemoryKeptValues
from server.core.counters import Counters
from server.core.log.entries import Position
from server.core.market.subscriptions import Subscriptions
from server.core.market.topics import Topic
from server.core.sessions.histories import HistoryRules
from server.delivery import DeliveryConfig, Hub
from server.services import (
    ClientPublishing,
    Freshness,
    FreshnessConfig,
    Instruments,
    MarketRecovery,
    NodeSubscriptions,
    Patterns,
    PublishingConfig,
    PublishingService,
    ResumingClient,
    SubscribingConfig,
    SubscribingService,
    TopicSubscriptions,
)
from server.services.market.candle_keeper import CandleKeeper
from server.services.market.candle_store import CandleStore
from server.services.market.candles import Candles
from server.services.market.series_loader import SeriesLoader
from server.services.market.subscribing import TopicReplies
from tests.kit.clock import ManualClock
from tests.kit.network.links import RecordingLink

PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}


def trader(user: str = "ann", org: str = "default") -> Principal:
    """A principal that may subscribe and publish."""
    scopes = frozenset({"market:read", "market:publish"})
    return Principal(user, org, scopes, expires_at=1e12)


class MarketRig:
    """Everything between a publisher and the clients' links."""

    def __init__(
        self,
        delivery: DeliveryConfig | None = None,
        freshness: FreshnessConfig | None = None,
        publishing: PublishingConfig | None = None,
        *,
        subscribing: SubscribingConfig | None = None,
        broker: type[MemoryBroker] = MemoryBroker,
        clock: ManualClock | None = None,
    ) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.clock = clock or ManualClock()
        # The time that it takes to publish a public message.
        self.publish_seconds = 0.0
        self.counters = Counters()
        self.delivery = delivery or DeliveryConfig()
        self.broker = broker(self.clock, epoch="e1")
        self.subscriptions = Subscriptions()
        self.hub = Hub(
            self.delivery,
            clock=self.clock,
            counters=self.counters,
            schedule=lambda call, seconds: self.scheduled.append(call),
        )
        self.freshness = Freshness(
            freshness or FreshnessConfig(heartbeat_seconds=0), self.hub, self.clock
        )
        self.kept = MemoryKeptValues(self.clock)
        self.instruments = Instruments(self.kept, self.hub, self.clock)
        self.store = CandleStore(self.kept, self.clock, max_bars=500)
        self.patterns = Patterns(self.instruments.table)
        self.instruments.listen(
            on_topic=self.patterns.on_topic,
            on_trading_state=lambda each: self.freshness.set_trading_state(
                each.symbol, each.trading_state
            ),
        )
        self.publishing = PublishingService(
            publishing or PublishingConfig(),
            self.broker,
            self.clock,
            self._on_published,
            self.instruments.forget,
        )
        self.client_publishing = ClientPublishing(self.publishing, self.clock)
        self.node_subscriptions = NodeSubscriptions(
            HistoryRules(), self.broker, self.hub, self.clock
        )
        self.loader = SeriesLoader(self.store, self.node_subscriptions)
        config = subscribing or SubscribingConfig(max_reply_bytes=self.delivery.buffer_bytes // 2)
        self.topics = topics = TopicSubscriptions(
            config,
            self.node_subscriptions,
            self.freshness,
            self.hub,
            self.instruments.table,
            self.loader,
        )
        self.keeper = CandleKeeper(self.store, self.loader, topics, self.hub, self.clock)
        self.candles = Candles(topics)
        self.service = SubscribingService(
            config, topics, self.subscriptions, self.hub, self.instruments, self.patterns
        )
        self.recovery = MarketRecovery(
            config,
            topics,
            self.service,
            self.subscriptions,
            self.hub,
            self.instruments,
            self.patterns,
        )

    def _on_published(self, topic: Topic, ts_ms: int) -> None:
        self.instruments.record(topic, ts_ms)
        self.keeper.record(topic, ts_ms)
        self.clock.advance(self.publish_seconds)

    @staticmethod
    async def create(
        delivery: DeliveryConfig | None = None,
        freshness: FreshnessConfig | None = None,
        publishing: PublishingConfig | None = None,
        *,
        subscribing: SubscribingConfig | None = None,
        broker: type[MemoryBroker] = MemoryBroker,
    ) -> "MarketRig":
        """Create a rig and start its broker."""
        rig = MarketRig(delivery, freshness, publishing, subscribing=subscribing, broker=broker)
        await rig.broker.start(rig.hub.deliver)
        return rig

    def link(self) -> RecordingLink:
        """A link to a new client."""
        return RecordingLink(clog_bytes=self.delivery.buffer_bytes // 4)

    def connect(
        self, name: str, principal: Principal | None = None, *, numbered: bool = False
    ) -> RecordingLink:
        """Connect a client; with `numbered` it can be recovered after a lost connection."""
        link = self.link()
        self.service.add_connection(name, principal or trader(name), link, numbered=numbered)
        return link

    def park(self, name: str) -> None:
        """Park a client, as after a lost connection."""
        self.recovery.park(name)

    def resume(self, name: str, link: RecordingLink, offset: str | None) -> bool:
        """Resume a parked client after `offset`; False if that is not possible."""
        return self.recovery.resume(name, ResumingClient(trader(name), link, "pid", offset), b"")

    async def client(self, name: str, *topics: str, interval_ms: int = 0) -> RecordingLink:
        """Connect a client and subscribe it; its user has the same name."""
        link = self.connect(name)
        await self.subscribe(name, *topics, interval_ms=interval_ms)
        return link

    async def subscribe(
        self, name: str, *topics: str, interval_ms: int = 0, user: str | None = None
    ) -> TopicReplies:
        """Subscribe a client."""
        return await self.service.subscribe(name, trader(user or name), topics, interval_ms)

    async def price(self, symbol: str, last: object = "1.01") -> Position:
        """Publish a price."""
        return await self.publishing.publish(f"PRICE:{symbol}", {**PRICE, "last": str(last)})

    async def trade(self, symbol: str, number: int) -> Position:
        """Publish a trade."""
        trade = {"id": number, "price": "1", "qty": "1", "side": "buy", "ts": 1}
        return await self.publishing.publish(f"TRADES:{symbol}", {"trades": [trade]})

    async def book(
        self,
        symbol: str,
        bids: list[tuple[str, str]],
        asks: list[tuple[str, str]],
        kind: str = "update",
    ) -> Position:
        """Publish levels of a book."""
        return await self.publishing.publish(
            f"ORDERBOOK:{symbol}", {"bids": bids, "asks": asks}, kind=kind
        )

    def run_scheduled(self) -> None:
        """Run the callbacks scheduled so far."""
        callbacks, self.scheduled[:] = list(self.scheduled), []
        for each in callbacks:
            each()

    def settle(self) -> None:
        """Run scheduled callbacks until none is left."""
        while self.scheduled:
            self.run_scheduled()

    def pass_time(self, seconds: float) -> None:
        """Advance the clock and run the periodic work."""
        self.clock.advance(seconds)
        self.freshness.tick()
        self.hub.tick()


STALE = FreshnessConfig(
    heartbeat_seconds=15.0, stale_seconds={Stream.PRICE: 10.0, Stream.ORDERBOOK: 10.0}
)
