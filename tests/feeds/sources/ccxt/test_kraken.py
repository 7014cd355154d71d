"""The feed `ccxt` of a local Kraken: what clients see, and what they see if something is wrong."""

import pytest

from tests.feeds.sources.ccxt.rig import NEEDS_CCXT, VenueRig, states, venue_rig
from tests.feeds.venues.kraken import KrakenVenue
from tests.kit.clock import START
from tests.kit.rigs.market import trader

pytestmark = [pytest.mark.sockets, NEEDS_CCXT]

NOW_MS = int(START * 1000)
BTC, ETH = "BTC/USD", "ETH/USD"
BOTH = (BTC, ETH)


async def all_subscribed(rig: VenueRig, venue: KrakenVenue) -> None:
    """Wait until the feed watches everything."""
    keys = [f"{channel} {symbol}" for channel in ("book", "trade", "ticker") for symbol in BOTH]
    await rig.until(lambda: all(map(venue.subscribers, keys)))


async def test_prices_trades_and_books_have_the_digits_of_the_venue() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=BTC) as rig:
        await rig.has("ORDERBOOK:BTC/USD")
        await rig.until(lambda: venue.subscribers("trade BTC/USD"))
        await rig.until(lambda: venue.subscribers("ticker BTC/USD"))
        venue.set_level(BTC, "100.5", "0.10000000")
        venue.trade(BTC, 7, NOW_MS)
        venue.tick(BTC, bid="100.5", ask="101.0", last="100.5")
        await rig.has("ORDERBOOK:BTC/USD", 2)
        await rig.has("TRADES:BTC/USD")
        await rig.has("PRICE:BTC/USD")
        book = await rig.data("ORDERBOOK:BTC/USD")
        assert book["bids"][:2] == [["100.5", "0.10000000"], ["100.0", "1.00000000"]]
        assert book["asks"][0] == ["101.0", "1.50000000"]
        assert await rig.data("PRICE:BTC/USD") == {
            "bid": "100.5",
            "ask": "101.0",
            "last": "100.5",
            "volume": "2158.32346723",
            "high": "102.0",
            "low": "99.5",
        }
        [trade] = (await rig.data("TRADES:BTC/USD"))["trades"]
        deal = {"id": "7", "price": "100.5", "qty": "0.25000000", "side": "buy", "ts": NOW_MS}
        assert trade == deal
        instrument = rig.market.instruments.table.get(BTC)
        assert instrument is not None
        assert instrument.fields["tick_size"] == "0.1"


async def test_no_update_of_a_burst_is_lost() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=f"{BTC},{ETH}") as rig:
        await all_subscribed(rig, venue)
        # ccxt's calls return one symbol; what arrives with it would wait for the next message.
        for number in range(1, 6):
            for symbol in BOTH:
                venue.trade(symbol, number, NOW_MS)
                venue.set_level(symbol, "50.0", f"{number}.00000000")
        for symbol in BOTH:
            venue.set_level(symbol, "100.5", "0.30000000")
            await rig.has(f"TRADES:{symbol}", 5)
            assert await rig.trades(symbol) == ["1", "2", "3", "4", "5"]
        await rig.until(lambda: rig.nodes[0].supervisor.publisher.published >= 14)
        for symbol in BOTH:
            book = await rig.data(f"ORDERBOOK:{symbol}")
            assert float(book["bids"][0][0]) == 100.5


async def test_book_with_a_wrong_checksum_is_stale_until_its_snapshot() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=f"{BTC},{ETH}") as rig:
        await rig.has("ORDERBOOK:BTC/USD")
        await rig.has("ORDERBOOK:ETH/USD")
        ann = await rig.market.client("ann", "ORDERBOOK:BTC/USD", "ORDERBOOK:ETH/USD")
        venue.set_level(BTC, "99.5", "0.20000000", lose=True)
        venue.set_level(BTC, "98.5", "0.30000000")
        await rig.has_states(ann, "ORDERBOOK:BTC/USD", "STALE", "LIVE")
        assert states(ann, "ORDERBOOK:ETH/USD") == [], "the other book is right"
        [message] = [each for each in ann.messages("orderbook") if each["symbol"] == BTC]
        assert message["type"] == "snapshot", "the change that had a wrong checksum is not sent"
        bids = [price for price, _ in message["data"]["bids"]]
        assert bids[:4] == ["100.0", "99.5", "99.0", "98.5"]
        assert venue.connections == 1
        assert rig.nodes[0].supervisor.failures == 0


async def test_wrong_checksum_at_once_after_another_is_noticed() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=f"{BTC},{ETH}") as rig:
        await rig.has("ORDERBOOK:BTC/USD")
        await rig.has("ORDERBOOK:ETH/USD")
        ann = await rig.market.client("ann", "ORDERBOOK:BTC/USD", "ORDERBOOK:ETH/USD")
        for symbol in BOTH:
            venue.set_level(symbol, "99.5", "0.20000000", lose=True)
        for symbol in BOTH:
            # ccxt's call reports one of them.
            venue.set_level(symbol, "98.5", "0.30000000")
        for symbol in BOTH:
            topic = f"ORDERBOOK:{symbol}"
            await rig.has_states(ann, topic, "STALE", "LIVE")
            assert len((await rig.data(topic))["bids"]) == 10


async def test_book_opened_while_it_begins_anew_is_stale() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=BTC) as rig:
        await rig.has("ORDERBOOK:BTC/USD")
        venue.is_silent = True
        venue.set_level(BTC, "99.5", "0.20000000", lose=True)
        venue.is_silent = False
        venue.set_level(BTC, "98.5", "0.30000000")
        venue.is_silent = True
        await rig.until(lambda: any(each["method"] == "unsubscribe" for each in venue.received))
        rig.market.clock.advance(1)
        ann = await rig.market.client("ann", "ORDERBOOK:BTC/USD")
        rig.market.settle()
        assert states(ann, "ORDERBOOK:BTC/USD") == ["STALE"]


async def test_cut_venue_is_stale_at_once_and_each_trade_is_published_once() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=BTC) as rig:
        await rig.has("ORDERBOOK:BTC/USD")
        await rig.until(lambda: venue.subscribers("trade BTC/USD"))
        for number in range(1, 21):
            venue.trade(BTC, number, NOW_MS)
        await rig.has("TRADES:BTC/USD", 20)
        ann = await rig.market.client("ann", "ORDERBOOK:BTC/USD", "TRADES:BTC/USD")
        venue.cut()
        # Made while the feed is away; the venue sends it with the others.
        venue.trade(BTC, 21, NOW_MS)
        venue.set_level(BTC, "100.5", "0.10000000")
        for topic in ("ORDERBOOK:BTC/USD", "TRADES:BTC/USD"):
            await rig.has_states(ann, topic, "STALE", "LIVE")
        assert await rig.trades(BTC) == [str(number) for number in range(1, 22)]
        assert [each.type for each in rig.nodes[0].events] == [
            "feed.live",
            "feed.stale",
            "feed.live",
        ]
        assert venue.requests == ["/0/public/Assets", "/0/public/AssetPairs"], "markets are kept"


async def test_cut_right_after_a_message_is_noticed() -> None:
    async with (
        KrakenVenue() as venue,
        venue_rig(venue, "kraken", symbols=BTC, streams="TRADES") as rig,
    ):
        await rig.until(lambda: venue.subscribers("trade BTC/USD"))
        venue.trade(BTC, 1, NOW_MS)
        await rig.has("TRADES:BTC/USD")
        # ccxt is not called at this moment, and would connect again by itself.
        venue.cut()
        await rig.until(lambda: [each.type for each in rig.nodes[0].events][-1:] == ["feed.stale"])


async def test_trades_that_are_no_longer_known_are_not_published_again() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=BTC) as rig:
        venue.trade(BTC, 1, NOW_MS)
        await rig.has("TRADES:BTC/USD")
        await rig.nodes[0].supervisor.stop()
        rig.market.clock.advance(1000)
        rig.start()
        venue.trade(BTC, 2, NOW_MS + 1_000_000)
        await rig.until(lambda: rig.nodes[-1].supervisor.is_live)
        await rig.has("TRADES:BTC/USD", 2)
        assert rig.market.broker.head_of("TRADES:BTC/USD").seq == 2


async def test_two_nodes_publish_each_trade_once() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=BTC) as rig:
        rig.start()
        await rig.until(lambda: venue.subscribers("trade BTC/USD") == 2)
        for number in range(1, 101):
            venue.trade(BTC, number, NOW_MS)
        published = [node.supervisor.publisher for node in rig.nodes]
        await rig.until(lambda: all(each.published > 100 for each in published))
        assert await rig.trades(BTC) == [str(number) for number in range(1, 101)]


async def test_silent_venue_is_stale_and_restarted() -> None:
    async with (
        KrakenVenue() as venue,
        venue_rig(venue, "kraken", symbols=BTC, silent_seconds=1) as rig,
    ):
        await rig.has("ORDERBOOK:BTC/USD")
        ann = await rig.market.client("ann", "ORDERBOOK:BTC/USD")
        venue.is_silent = True
        rig.market.clock.advance(1)
        await rig.has_states(ann, "ORDERBOOK:BTC/USD", "STALE")
        [_, stale, *_] = rig.nodes[0].events
        assert stale.reason == "kraken has sent nothing for 1 s"
        venue.is_silent = False
        venue.set_level(BTC, "100.5", "0.10000000")
        await rig.until(lambda: states(ann, "ORDERBOOK:BTC/USD")[-1] == "LIVE")


async def test_book_whose_snapshot_is_lost_is_subscribed_to_again() -> None:
    async with KrakenVenue() as venue:
        venue.is_silent = True
        async with venue_rig(venue, "kraken", symbols=BTC) as rig:
            await rig.until(lambda: venue.subscribers("book BTC/USD"))
            venue.is_silent = False
            venue.set_level(BTC, "100.5", "0.10000000")
            await rig.has("ORDERBOOK:BTC/USD")
            assert (await rig.data("ORDERBOOK:BTC/USD"))["bids"][0][0] == "100.5"
            assert venue.connections == 1


@pytest.mark.parametrize("text", ['{"channel": "book", "data": [{}]}', '{"channel": ', "[[["])
async def test_rubbish_on_the_connection_restarts_the_feed(text: str) -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols=BTC) as rig:
        await rig.has("ORDERBOOK:BTC/USD")
        venue.send("book BTC/USD", text)
        await rig.until(lambda: len(rig.nodes[0].events) == 2)
        venue.set_level(BTC, "100.5", "0.10000000")
        await rig.has("ORDERBOOK:BTC/USD", 2)


@pytest.mark.parametrize(
    "failure", [(500, ""), (503, "<html>busy</html>"), (200, "{"), (200, '{"result": {}}')]
)
async def test_venue_without_markets_is_tried_again(failure: tuple[int, str]) -> None:
    async with KrakenVenue() as venue:
        venue.failure = failure
        async with venue_rig(venue, "kraken", symbols=BTC) as rig:
            await rig.until(lambda: rig.nodes[0].supervisor.failures >= 2)
            venue.failure = None
            await rig.has("ORDERBOOK:BTC/USD")


async def test_only_what_is_listened_to_is_watched() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", on_demand=True) as rig:
        await rig.until(lambda: rig.market.instruments.table.get(ETH))
        ann = await rig.market.client("ann", "ORDERBOOK:ETH/USD")
        await rig.until(lambda: ann.messages("orderbook"))
        channels = [set(each) for each in venue.sockets.values()]
        assert channels == [{"book ETH/USD"}]


async def test_what_nobody_listens_to_any_more_is_not_published() -> None:
    async with (
        KrakenVenue() as venue,
        venue_rig(venue, "kraken", on_demand=True, streams="TRADES") as rig,
    ):
        await rig.until(lambda: rig.market.instruments.table.get(ETH))
        await rig.market.client("ann", "TRADES:BTC/USD", "TRADES:ETH/USD")
        await rig.until(lambda: all(venue.subscribers(f"trade {each}") for each in BOTH))
        await rig.market.service.unsubscribe("ann", trader("ann"), ["TRADES:BTC/USD"])
        rig.market.clock.advance(60)
        number = 0
        # Kraken goes on to send both: ccxt cannot unsubscribe there.
        while rig.market.broker.head_of("TRADES:BTC/USD").seq == number:
            number += 1
            for symbol in BOTH:
                venue.trade(symbol, number, NOW_MS + 60_000)
            await rig.has("TRADES:ETH/USD", number)


async def test_halted_market_is_told_by_its_status() -> None:
    async with KrakenVenue() as venue:
        venue.status = "cancel_only"
        async with venue_rig(venue, "kraken", symbols=BTC) as rig:
            await rig.until(lambda: rig.market.instruments.table.get(BTC))
            instrument = rig.market.instruments.table.get(BTC)
            assert instrument is not None
            assert instrument.body()["status"] == "HALTED"


async def test_unknown_symbol_fails_the_feed_with_its_name() -> None:
    async with KrakenVenue() as venue, venue_rig(venue, "kraken", symbols="BTC/JPY") as rig:
        await rig.until(lambda: rig.nodes[0].events)
        assert rig.nodes[0].events[0].reason == "kraken has no BTC/JPY, only BTC/USD, ETH/USD"
