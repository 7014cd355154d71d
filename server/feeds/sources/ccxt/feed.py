"""The feed `ccxt`: watches a venue's markets and publishes what they send."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from client_sdk.contract import Stream
from client_sdk.contract.names import topic_name
from server.feeds.errors import FeedError
from server.feeds.sources.ccxt.exchange import check_venue, open_exchange
from server.feeds.sources.ccxt.markets import VenueMarket, choose_markets
from server.feeds.sources.ccxt.options import CcxtOptions
from server.feeds.sources.ccxt.publisher import VenuePublisher
from server.feeds.sources.ccxt.updates import Trade, Updates
from server.feeds.sources.ccxt.watchers import Watchers
from server.feeds.sources.options import read_options
from server.feeds.sources.relay import Relay
from server.ports import FeedOptions, Publishing
from server.tasks import run_until_first_ends

logger = logging.getLogger(__name__)

# All markets of a large venue are some megabytes.
_MARKETS_SECONDS = 60.0
# Afterwards the next run loads them again: markets come and go.
_MARKETS_KEPT_SECONDS = 3600.0
_CLOSE_SECONDS = 5.0


class CcxtFeed:
    """Publishes the prices, trades and books of one venue.

    If a connection fails, or the venue is silent, the feed fails and is restarted; it keeps the
    venue's markets meanwhile. A book that ccxt finds wrong begins anew by itself.
    """

    def __init__(self, options: FeedOptions) -> None:
        self._name = options.name
        self._clock = options.clock
        self._options = read_options(CcxtOptions, options)
        self._venue = options.argument or self._options.venue
        check_venue(self._venue)
        self._symbols = self._options.symbols or options.symbol_names
        if not self._symbols and not self._options.on_demand:
            raise FeedError(f"the feed {self._name} needs symbols such as BTC/USD, or on_demand")
        # As ccxt has them, and when they were loaded.
        self._markets: Sequence[Mapping[str, Any]] = ()
        self._loaded_at = 0.0
        self._instruments: dict[str, Mapping[str, object]] = {}
        # The newest published trade of each symbol: where to fill from after a failure.
        self._last_trades: dict[str, Trade] = {}

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled; raises what ccxt raises if the venue fails."""
        updates = Updates()
        exchange = open_exchange(self._venue, self._options, updates)
        try:
            await self._load_markets(exchange)
            # From here on numbers are the venue's own texts.
            exchange.number = str
            markets = choose_markets(
                self._venue, exchange.markets, self._symbols, exchange.precisionMode
            )
            await self._set_instruments(publishing, markets.values())
            await self._watch(exchange, markets, updates, publishing)
        finally:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await exchange.close()

    async def _watch(
        self,
        exchange: Any,
        markets: Mapping[str, VenueMarket],
        updates: Updates,
        publishing: Publishing,
    ) -> None:
        def on_lost(lost: Sequence[VenueMarket], reason: str) -> None:
            topics = [topic_name(Stream.ORDERBOOK, each.symbol) for each in lost]
            logger.warning(
                "books begin anew: %s", reason, extra={"feed": self._name, "books": len(lost)}
            )
            publishing.set_stale(topics, reason)

        options, clock = self._options, self._clock
        watchers = Watchers(self._name, self._venue, exchange, options, updates, clock, on_lost)
        relay = Relay(self._name, publishing, self._clock)
        publisher = VenuePublisher(
            self._venue,
            exchange,
            markets,
            options,
            updates,
            watchers,
            relay,
            publishing,
            clock,
            self._name,
            self._last_trades,
        )
        follow = self._watch_wanted if options.on_demand else self._watch_all
        try:
            await run_until_first_ends(
                follow(watchers, markets, publishing), publisher.run(), name="floorcast-ccxt"
            )
        finally:
            await watchers.stop()

    async def _watch_all(
        self, watchers: Watchers, markets: Mapping[str, VenueMarket], publishing: Publishing
    ) -> None:
        for stream in self._options.streams:
            await watchers.want(stream, list(markets.values()))
        # They are watched until the feed is cancelled.
        await asyncio.get_running_loop().create_future()

    async def _watch_wanted(
        self, watchers: Watchers, markets: Mapping[str, VenueMarket], publishing: Publishing
    ) -> None:
        symbols = [each.symbol for each in markets.values()]
        async for topics in publishing.demand(symbols):
            for stream in self._options.streams:
                wanted = [
                    each for each in markets.values() if topic_name(stream, each.symbol) in topics
                ]
                await watchers.want(stream, wanted)

    async def _load_markets(self, exchange: Any) -> None:
        """Give the exchange the venue's markets; those of an earlier run while they are recent."""
        if self._markets and self._clock.monotonic() - self._loaded_at < _MARKETS_KEPT_SECONDS:
            exchange.set_markets(self._markets)
            return
        async with asyncio.timeout(_MARKETS_SECONDS):
            await exchange.load_markets()
        self._markets = list(exchange.markets.values())
        self._loaded_at = self._clock.monotonic()

    async def _set_instruments(
        self, publishing: Publishing, markets: Iterable[VenueMarket]
    ) -> None:
        for each in markets:
            if self._instruments.get(each.symbol) != each.instrument:
                await publishing.set_instrument(each.symbol, each.instrument)
                self._instruments[each.symbol] = each.instrument
