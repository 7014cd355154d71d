"""Publishes what a venue sends: every trade once, and the newest of prices and books."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from client_sdk.contract import Stream
from client_sdk.contract.names import topic_name
from server.feeds.sources.ccxt.fill import TradeFill
from server.feeds.sources.ccxt.markets import VenueMarket
from server.feeds.sources.ccxt.messages import (
    levels,
    price_message,
    published_trade,
    trade_message,
)
from server.feeds.sources.ccxt.options import CcxtOptions
from server.feeds.sources.ccxt.updates import Ticker, Trade, Updates
from server.feeds.sources.ccxt.watchers import Watchers
from server.feeds.sources.messages import SourceMessage, UnreadableMessage
from server.feeds.sources.relay import Relay
from server.ports import Clock, Publishing
from server.tasks import run_until_first_ends

logger = logging.getLogger(__name__)


class VenueSilent(Exception):
    """A venue has sent nothing for too long."""


class VenuePublisher:
    """Publishes the updates of one run of the feed."""

    def __init__(
        self,
        venue: str,
        exchange: Any,
        markets: Mapping[str, VenueMarket],
        options: CcxtOptions,
        updates: Updates,
        watchers: Watchers,
        relay: Relay,
        publishing: Publishing,
        clock: Clock,
        name: str,
        last_trades: dict[str, Trade],
    ) -> None:
        self._venue = venue
        self._exchange = exchange
        self._markets = markets
        self._options = options
        self._updates = updates
        self._watchers = watchers
        self._relay = relay
        self._publishing = publishing
        self._clock = clock
        self._fill = TradeFill(
            name,
            exchange,
            options,
            updates,
            watchers,
            self._publish_trade,
            self._find_last_trade,
            last_trades,
            clock,
        )

    async def run(self) -> None:
        """Publish until cancelled; raises the failure of the venue."""
        try:
            await run_until_first_ends(
                self._publish_updates(), self._fill.fill_quiet(), name="floorcast-ccxt-publish"
            )
        finally:
            await self._fill.stop()

    async def _publish_updates(self) -> None:
        while True:
            await self._wait()
            while self._updates:
                # In turn, so that a flood of one kind does not hold up the others.
                if (trade := self._updates.pop_trade()) is not None:
                    await self._fill.add(trade)
                if (symbol := self._updates.pop_book()) is not None:
                    await self._publish_book(symbol)
                if (ticker := self._updates.pop_ticker()) is not None:
                    await self._publish_price(ticker)

    async def _wait(self) -> None:
        seconds = self._options.silent_seconds or None
        while True:
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    return await self._updates.wait()
            except TimeoutError:
                if not limit.expired():
                    raise
                if self._watchers.watching_seconds >= self._options.silent_seconds:
                    silent = f"{self._venue} has sent nothing for {seconds:g} s"
                    raise VenueSilent(silent) from None

    def _market(self, stream: Stream, venue_symbol: str) -> VenueMarket | None:
        if not self._watchers.is_wanted(stream, venue_symbol):
            return None
        return self._markets.get(venue_symbol)

    async def _publish_trade(self, trade: Trade) -> None:
        market = self._market(Stream.TRADES, trade["symbol"])
        if market is None:
            return
        trade_id = trade.get("id")
        read = partial(self._read_trade, trade, market)
        await self._relay.publish(read, str(trade_id), once=trade_id is not None)

    async def _find_last_trade(self, symbol: str) -> Trade | None:
        """The newest trade of a symbol's topic, if it is so new that what follows is published."""
        market = self._market(Stream.TRADES, symbol)
        found: Trade | None = None

        async def read() -> None:
            nonlocal found
            if market is not None:
                newest = await self._publishing.latest(topic_name(Stream.TRADES, market.symbol))
                found = published_trade(newest, symbol)

        await self._relay.attempt(read, symbol)
        return None if found is None or self._is_old(found["timestamp"]) else found

    def _is_old(self, source_ts: int) -> bool:
        return self._clock.time() - source_ts / 1000 > self._options.trade_seconds

    def _read_trade(self, trade: Trade, market: VenueMarket) -> SourceMessage:
        message = trade_message(trade, market)
        assert message.source_ts is not None
        if self._is_old(message.source_ts):
            raise UnreadableMessage(f"a trade of {market.symbol} is too old")
        return message

    async def _publish_price(self, ticker: Ticker) -> None:
        market = self._market(Stream.PRICE, ticker["symbol"])
        if market is None:
            return
        book = self._exchange.orderbooks.get(market.venue_symbol) or {}
        best_bid, best_ask = _best(book.get("bids")), _best(book.get("asks"))
        read = partial(price_message, ticker, best_bid, best_ask, market)
        await self._relay.publish(read, market.symbol, once=False)

    async def _publish_book(self, venue_symbol: str) -> None:
        market = self._market(Stream.ORDERBOOK, venue_symbol)
        if market is not None:
            await self._relay.attempt(partial(self._send_book, market), market.symbol)

    async def _send_book(self, market: VenueMarket) -> None:
        book = self._exchange.orderbooks.get(market.venue_symbol)
        # ccxt drops a book that is wrong.
        if book is not None:
            depth = self._options.depth
            bids, asks = (levels(book[side][:depth], market) for side in ("bids", "asks"))
            await self._publishing.publish_book(
                market.symbol, bids, asks, source_ts=book.get("timestamp")
            )


def _best(side: Sequence[Sequence[Any]] | None) -> object:
    return side[0][0] if side else None
