"""The feed `ccxt` publishes what was traded while its connection was away."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from tests.feeds.sources.ccxt.rig import NEEDS_CCXT, VenueRig, venue_rig
from tests.feeds.venues.binance import BinanceVenue
from tests.feeds.venues.kraken import KrakenVenue
from tests.feeds.venues.venue import LocalVenue
from tests.kit.clock import START

pytestmark = [pytest.mark.sockets, NEEDS_CCXT]

NOW_MS = int(START * 1000)
BTC = "BTC/USD"
QUIET = "server.feeds.sources.ccxt.fill.QUIET_SECONDS"


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def requests(venue: LocalVenue) -> int:
    """The requests for trades."""
    return sum(path.lower().endswith("/trades") for path in venue.requests)


async def cut(rig: VenueRig, venue: LocalVenue, key: str, trade: Callable[[], object]) -> None:
    """Cut the connection, trade meanwhile, and wait until the feed watches again."""
    connections = venue.connections
    venue.cut()
    trade()
    await rig.until(lambda: venue.connections > connections and venue.subscribers(key))


@contextlib.asynccontextmanager
async def binance(
    streams: str = "TRADES", **options: object
) -> AsyncIterator[tuple[BinanceVenue, VenueRig]]:
    """A venue and a feed that watches its trades of BTC/USDT."""
    async with (
        BinanceVenue() as venue,
        venue_rig(venue, "binance", symbols="BTC/USDT", streams=streams, **options) as rig,
    ):
        await rig.until(lambda: venue.subscribers("btcusdt@trade"))
        yield venue, rig


async def test_kraken_fills_more_than_the_trades_it_sends_again() -> None:
    async with (
        KrakenVenue() as venue,
        venue_rig(venue, "kraken", symbols=BTC, streams="TRADES") as rig,
    ):
        await rig.until(lambda: venue.subscribers("trade BTC/USD"))
        for number in range(1, 6):
            venue.trade(BTC, number, NOW_MS)
        await rig.has("TRADES:BTC/USD", 5)

        def trade() -> None:
            for number in range(6, 206):
                venue.trade(BTC, number, NOW_MS + number * 10)

        await cut(rig, venue, "trade BTC/USD", trade)
        venue.trade(BTC, 206, NOW_MS + 2060)
        await rig.has("TRADES:BTC/USD", 206)
        assert await rig.trades(BTC) == numbers(1, 206)
        [filled] = (await rig.market.broker.before("TRADES:BTC/USD", None, 200))[:1]
        assert b'"price":"100.5","qty":"0.25000000","side":"buy"' in filled.data
        assert requests(venue) == 1


async def test_binance_fills_the_trades_that_it_never_sends_again() -> None:
    async with binance() as (venue, rig):
        for number in range(8, 10):
            venue.trade(number, NOW_MS)
        await rig.has("TRADES:BTC/USDT", 2)

        def trade() -> None:
            for number in range(10, 110):
                venue.trade(number, NOW_MS)

        await cut(rig, venue, "btcusdt@trade", trade)
        for number in range(110, 121):
            venue.trade(number, NOW_MS + 1)
        await rig.has("TRADES:BTC/USDT", 113)
        assert await rig.trades("BTC/USDT") == numbers(8, 120)
        assert requests(venue) == 1


async def test_live_trades_wait_for_the_fill_and_prices_do_not() -> None:
    async with (
        KrakenVenue() as venue,
        venue_rig(venue, "kraken", symbols=BTC, streams="TRADES,PRICE") as rig,
    ):
        await until_held(rig, venue)
        for number in range(102, 112):
            venue.trade(BTC, number, NOW_MS + 2)
        await rig.until(lambda: venue.subscribers("ticker BTC/USD"))
        venue.tick(BTC, bid="100.5", ask="101.0", last="100.5")
        await rig.has("PRICE:BTC/USD")
        assert await rig.trades(BTC) == ["1"]
        venue.answers.set()
        await rig.has("TRADES:BTC/USD", 111)
        assert await rig.trades(BTC) == numbers(1, 111)


async def test_few_trades_wait_for_the_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.feeds.sources.ccxt.fill._MAX_WAITING", 3)
    async with (
        KrakenVenue() as venue,
        venue_rig(venue, "kraken", symbols=BTC, streams="TRADES") as rig,
    ):
        await until_held(rig, venue)
        venue.answers.set()
        await rig.has("TRADES:BTC/USD", 101)
        assert await rig.trades(BTC) == numbers(1, 101)


async def until_held(rig: VenueRig, venue: KrakenVenue) -> None:
    """Cut the connection, trade 100 times, and wait until REST is asked, which does not answer."""
    await rig.until(lambda: venue.subscribers("trade BTC/USD"))
    venue.trade(BTC, 1, NOW_MS)
    await rig.has("TRADES:BTC/USD")
    venue.answers.clear()

    def trade() -> None:
        for number in range(2, 102):
            venue.trade(BTC, number, NOW_MS + 1)

    await cut(rig, venue, "trade BTC/USD", trade)
    await rig.until(lambda: requests(venue))


async def test_quiet_symbol_is_filled_before_its_next_trade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(QUIET, 0.01)
    async with binance() as (venue, rig):
        venue.trade(1, NOW_MS)
        await rig.has("TRADES:BTC/USDT")
        await cut(rig, venue, "btcusdt@trade", lambda: venue.trade(2, NOW_MS + 1))
        await rig.has("TRADES:BTC/USDT", 2)
        # The stream has not begun when REST answers, as it may be at any venue.
        venue.is_silent = True
        venue.trade(3, NOW_MS + 2)
        venue.is_silent = False
        venue.trade(4, NOW_MS + 3)
        await rig.has("TRADES:BTC/USDT", 4)
        assert await rig.trades("BTC/USDT") == numbers(1, 4)


async def test_symbol_traded_during_its_fill_is_filled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(QUIET, 0.01)
    async with binance(streams="TRADES,PRICE", fill_trades=2) as (venue, rig):
        for number in (1, 2):
            venue.trade(number, NOW_MS)
        await rig.has("TRADES:BTC/USDT", 2)
        venue.answers.clear()
        await cut(rig, venue, "btcusdt@trade", lambda: None)
        await rig.until(lambda: requests(venue))
        await rig.until(lambda: venue.subscribers("btcusdt@ticker"))
        # REST has answered without it.
        venue.is_silent = True
        venue.trade(3, NOW_MS + 1)
        venue.is_silent = False
        venue.trade(4, NOW_MS + 2)
        venue.tick("100.50000000")
        await rig.has("PRICE:BTC/USDT")
        venue.answers.set()
        await rig.has("TRADES:BTC/USDT", 4)
        assert await rig.trades("BTC/USDT") == numbers(1, 4)
        assert requests(venue) == 2


@pytest.mark.parametrize("failure", [(500, ""), (200, "{"), (200, '{"result": {}}'), (200, "[7]")])
async def test_stream_goes_on_if_rest_fails(
    failure: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with binance() as (venue, rig):
        venue.trade(1, NOW_MS)
        await rig.has("TRADES:BTC/USDT")
        venue.failure = failure
        await cut(rig, venue, "btcusdt@trade", lambda: venue.trade(2, NOW_MS + 1000))
        venue.trade(3, NOW_MS + 2000)
        await rig.has("TRADES:BTC/USDT", 2)
        assert await rig.trades("BTC/USDT") == ["1", "3"]
        assert "trades of 2 s may be missing" in caplog.text
        assert rig.nodes[0].supervisor.failures == 1, "the cut"


async def test_more_trades_than_the_bound_are_missed_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with binance(fill_trades=5) as (venue, rig):
        venue.trade(1, NOW_MS)
        await rig.has("TRADES:BTC/USDT")

        def trade() -> None:
            for number in range(2, 11):
                venue.trade(number, NOW_MS + number * 1000)

        await cut(rig, venue, "btcusdt@trade", trade)
        venue.trade(11, NOW_MS + 11_000)
        await rig.has("TRADES:BTC/USDT", 6)
        assert await rig.trades("BTC/USDT") == ["1", *numbers(7, 11)]
        assert "trades of 7 s may be missing: there are more than 5 trades" in caplog.text


async def test_nothing_is_fetched_if_fill_is_off() -> None:
    async with binance(fill_trades=0) as (venue, rig):
        venue.trade(1, NOW_MS)
        await rig.has("TRADES:BTC/USDT")
        await cut(rig, venue, "btcusdt@trade", lambda: venue.trade(2, NOW_MS))
        venue.trade(3, NOW_MS)
        await rig.has("TRADES:BTC/USDT", 2)
        assert await rig.trades("BTC/USDT") == ["1", "3"]
        assert requests(venue) == 0


async def test_fresh_node_waits_for_the_same_fill_as_the_other() -> None:
    async with binance() as (venue, rig):
        venue.trade(1, NOW_MS)
        await rig.has("TRADES:BTC/USDT")
        rig.start()
        await rig.until(lambda: venue.subscribers("btcusdt@trade") == 2)
        venue.answers.clear()

        def trade() -> None:
            for number in range(2, 6):
                venue.trade(number, NOW_MS + 1)

        await cut(rig, venue, "btcusdt@trade", trade)
        await rig.until(lambda: venue.subscribers("btcusdt@trade") == 2)
        venue.trade(6, NOW_MS + 2)
        await rig.until(lambda: requests(venue) == 2)
        assert await rig.trades("BTC/USDT") == ["1"]
        venue.answers.set()
        await rig.has("TRADES:BTC/USDT", 6)
        assert await rig.trades("BTC/USDT") == numbers(1, 6)


@pytest.mark.parametrize("gap_seconds", [50, 200])
async def test_restarted_node_continues_where_the_topic_ends(gap_seconds: int) -> None:
    async with binance() as (venue, rig):
        venue.trade(1, NOW_MS)
        await rig.has("TRADES:BTC/USDT")
        await rig.nodes[0].supervisor.stop()
        await rig.until(lambda: not venue.subscribers("btcusdt@trade"))
        rig.market.clock.advance(gap_seconds)
        now_ms = NOW_MS + gap_seconds * 1000
        venue.trade(2, now_ms - 1)
        rig.start()
        await rig.until(lambda: venue.subscribers("btcusdt@trade"))
        venue.trade(3, now_ms)
        # Trades older than `trade_seconds` are not published: after such a gap nothing is fetched.
        expected = ["1", "2", "3"] if gap_seconds < 100 else ["1", "3"]
        await rig.has("TRADES:BTC/USDT", len(expected))
        assert await rig.trades("BTC/USDT") == expected
        assert requests(venue) == len(expected) - 2
