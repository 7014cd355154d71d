"""The feed `ccxt` of a local Binance, whose books have sequence numbers."""

import asyncio

import pytest

from server.tasks import cancel_and_wait
from tests.feeds.sources.ccxt.rig import NEEDS_CCXT, venue_rig
from tests.feeds.venues.binance import BinanceVenue
from tests.kit.clock import START

pytestmark = [pytest.mark.sockets, NEEDS_CCXT]

NOW_MS = int(START * 1000)


async def test_prices_trades_and_books_are_published() -> None:
    async with BinanceVenue() as venue, venue_rig(venue, "binance", symbols="BTC/USDT") as rig:
        await rig.has("ORDERBOOK:BTC/USDT")
        await rig.until(lambda: venue.subscribers("btcusdt@trade"))
        await rig.until(lambda: venue.subscribers("btcusdt@ticker"))
        venue.set_bid("100.10", "0.100")
        venue.trade(7, NOW_MS)
        venue.tick("100.50000000")
        await rig.has("ORDERBOOK:BTC/USDT", 2)
        await rig.has("TRADES:BTC/USDT")
        await rig.has("PRICE:BTC/USDT")
        book = await rig.data("ORDERBOOK:BTC/USDT")
        assert book["bids"][:2] == [["100.10", "0.100"], ["100.00", "1.000"]]
        price = await rig.data("PRICE:BTC/USDT")
        assert (price["bid"], price["ask"], price["last"]) == ("100.00", "101.00", "100.50")
        [trade] = (await rig.data("TRADES:BTC/USDT"))["trades"]
        assert (trade["id"], trade["price"], trade["side"]) == ("7", "100.50", "sell")


async def test_gap_in_the_sequence_makes_a_new_snapshot() -> None:
    async with BinanceVenue() as venue, venue_rig(venue, "binance", symbols="BTC/USDT") as rig:
        await rig.has("ORDERBOOK:BTC/USDT")
        venue.set_bid("100.10", "0.100")
        await rig.has("ORDERBOOK:BTC/USDT", 2)
        ann = await rig.market.client("ann", "ORDERBOOK:BTC/USDT")
        venue.set_bid("100.20", "0.200", lose=True)
        venue.set_bid("100.30", "0.300")
        await rig.has_states(ann, "ORDERBOOK:BTC/USDT", "STALE", "LIVE")
        [message] = ann.messages("orderbook")
        assert message["type"] == "snapshot"
        bids = [price for price, _ in message["data"]["bids"]]
        assert bids[:3] == ["100.30", "100.20", "100.10"]
        assert rig.nodes[0].supervisor.failures == 0


async def test_symbols_of_futures_are_topics_as_they_are() -> None:
    async with (
        BinanceVenue() as venue,
        venue_rig(venue, "binance", symbols="BTC/USDT:USDT", streams="TRADES") as rig,
    ):
        await rig.until(lambda: venue.subscribers("btcusdt@trade"))
        venue.trade(7, NOW_MS)
        await rig.has("TRADES:BTC/USDT:USDT")
        instrument = rig.market.instruments.table.get("BTC/USDT:USDT")
        assert instrument is not None
        assert instrument.fields["settle"] == "USDT"


async def test_venue_is_left_by_symbols_without_listeners() -> None:
    async with (
        BinanceVenue() as venue,
        venue_rig(venue, "binance", on_demand=True, streams="TRADES") as rig,
    ):
        await rig.until(lambda: rig.market.instruments.table.get("BTC/USDT"))
        await rig.market.client("ann", "TRADES:BTC/USDT")
        await rig.until(lambda: venue.subscribers("btcusdt@trade"))
        await rig.market.service.remove_connection("ann")
        rig.market.clock.advance(60)
        await rig.until(lambda: not venue.subscribers("btcusdt@trade"))


async def keep_sending_prices(venue: BinanceVenue) -> None:
    while True:
        venue.tick("100.50000000")
        await asyncio.sleep(0.01)


async def test_dead_connection_beside_a_live_one_is_noticed() -> None:
    async with (
        BinanceVenue() as venue,
        venue_rig(
            venue,
            "binance",
            symbols="BTC/USDT",
            streams="PRICE,TRADES",
            silent_seconds=0.6,
        ) as rig,
    ):
        await rig.until(lambda: venue.subscribers("btcusdt@trade"))
        await rig.until(lambda: venue.subscribers("btcusdt@ticker"))
        venue.trade(7, NOW_MS)
        await rig.has("TRADES:BTC/USDT")
        ann = await rig.market.client("ann", "TRADES:BTC/USDT")
        venue.freeze("btcusdt@trade")
        prices = asyncio.create_task(keep_sending_prices(venue))
        await rig.has_states(ann, "TRADES:BTC/USDT", "STALE")
        await cancel_and_wait(prices)
        assert "ping-pong" in rig.nodes[0].events[1].reason
