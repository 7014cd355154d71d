"""The feed `ccxt` writes what a venue sends as messages, with exact numbers."""

from typing import Any

import pytest

from client_sdk.contract import Stream
from server.feeds import FeedError
from server.feeds.sources.ccxt.checksum import kraken_checksum
from server.feeds.sources.ccxt.markets import by_kind, choose_markets
from server.feeds.sources.ccxt.messages import exact_text, price_message, trade_message
from server.feeds.sources.ccxt.options import CcxtOptions
from server.feeds.sources.ccxt.updates import TooSlow, Updates
from server.feeds.sources.messages import UnreadableMessage
from server.feeds.sources.options import read_options
from server.ports import FeedOptions
from tests.kit.clock import ManualClock

DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE = 2, 3, 4


def market(symbol: str = "BTC/USD", **fields: object) -> dict[str, Any]:
    base, _, quote = symbol.partition("/")
    precision = {"price": 0.1, "amount": 1e-08}
    known = {"symbol": symbol, "base": base, "quote": quote, "precision": precision}
    return {**known, "type": "spot", "active": True, **fields}


def chosen(*markets: dict[str, Any], names: tuple[str, ...] = (), mode: int = TICK_SIZE) -> Any:
    return choose_markets("kraken", {each["symbol"]: each for each in markets}, names, mode)


@pytest.mark.parametrize(
    ("number", "step", "text"),
    [
        ("45285.2", "0.1", "45285.2"),
        ("45285", "0.01", "45285.00"),
        (0.1, "0.0001", "0.1000"),
        (1e-08, None, "0.00000001"),
        ("0.10000000", None, "0.1"),
        ("1E+3", "1", "1000"),
        ("100", "25", "100"),
        # The venue's own precision may be wrong, and its prices are right.
        ("0.12345", "0.01", "0.12345"),
    ],
)
def test_number_has_the_decimals_of_its_step_and_loses_none(
    number: object, step: str | None, text: str
) -> None:
    assert exact_text(number, step) == text


def test_number_that_is_none_is_refused() -> None:
    with pytest.raises(UnreadableMessage):
        exact_text("NaN", None)


def test_checksum_is_that_of_krakens_own_example() -> None:
    asks = [
        (45285.2, 0.001),
        (45286.4, 1.54571953),
        (45286.6, 1.54571109),
        (45289.6, 1.54560911),
        (45290.2, 0.1589066),
        (45291.8, 1.54553491),
        (45294.7, 0.04454749),
        (45296.1, 0.3538),
        (45297.5, 0.09945542),
        (45299.5, 0.18772827),
    ]
    bids = [
        (45283.5, 0.1),
        (45283.4, 1.54582015),
        (45282.1, 0.1),
        (45281.0, 0.1),
        (45280.3, 1.54592586),
        (45279.0, 0.0799),
        (45277.6, 0.03310103),
        (45277.5, 0.3),
        (45277.3, 1.54602737),
        (45276.6, 0.15445238),
    ]
    checksum = kraken_checksum(bids, asks, price_decimals=1, quantity_decimals=8)
    assert checksum == 3310070434


def test_market_has_reference_data_and_its_state() -> None:
    [found] = chosen(market(active=False, settle="USD"), names=("BTC/USD",)).values()
    assert found.instrument == {
        "base": "BTC",
        "quote": "USD",
        "tick_size": "0.1",
        "lot_size": "0.00000001",
        "type": "spot",
        "settle": "USD",
        "status": "HALTED",
    }


@pytest.mark.parametrize(
    ("mode", "precision", "tick_size"),
    [(DECIMAL_PLACES, 2, "0.01"), (DECIMAL_PLACES, 0, "1"), (SIGNIFICANT_DIGITS, 5, None)],
)
def test_tick_size_follows_how_the_venue_counts(
    mode: int, precision: int, tick_size: str | None
) -> None:
    [found] = chosen(market(precision={"price": precision}), mode=mode).values()
    assert found.tick_size == tick_size


def test_topics_have_capital_letters() -> None:
    [found] = chosen(market("kPEPE/USDC:USDC"), names=("KPEPE/USDC:USDC",)).values()
    assert (found.venue_symbol, found.symbol) == ("kPEPE/USDC:USDC", "KPEPE/USDC:USDC")


def test_without_names_all_active_markets_that_can_be_topics_are_chosen() -> None:
    long = "BTC/USD:BTC-261225-100000-C-AND-SO-ON"
    markets = (market("A/B"), market("C/D", active=False), market(long), market("E/F"))
    assert list(chosen(*markets)) == ["A/B", "E/F"]


def test_unknown_symbols_are_named() -> None:
    markets = [market(f"A{number}/B") for number in range(9)]
    with pytest.raises(FeedError, match=r"kraken has no X/Y, only A0/B, .*A4/B and 4 more"):
        chosen(*markets, names=("X/Y",))


def test_one_call_has_markets_of_one_kind() -> None:
    markets = chosen(*(market(f"A{number}/B") for number in range(3)), market("C/D", type="swap"))
    groups = by_kind(markets.values(), 2)
    assert [[each.symbol for each in group] for group in groups] == [
        ["A0/B", "A1/B"],
        ["A2/B"],
        ["C/D"],
    ]


def test_ticker_without_bid_and_ask_has_those_of_the_book() -> None:
    [found] = chosen(market()).values()
    ticker = {"last": "100.5", "bid": None, "ask": None, "baseVolume": None, "timestamp": 5}
    message = price_message(ticker, "100.4", "100.6", found)
    assert message.data == {"bid": "100.4", "ask": "100.6", "last": "100.5", "volume": "0.00000000"}
    assert message.source_ts == 5
    with pytest.raises(UnreadableMessage, match="has no bid, ask or last price"):
        price_message(ticker, None, None, found)


def test_trade_without_an_id_gets_one() -> None:
    [found] = chosen(market()).values()
    trade = {"id": None, "price": "1.5", "amount": "2", "side": "buy", "timestamp": 7}
    deal = {"id": "7-1.5-2", "price": "1.5", "qty": "2.00000000", "side": "buy", "ts": 7}
    assert trade_message(trade, found).data == {"trades": [deal]}


def test_only_new_trades_of_the_cache_are_taken() -> None:
    updates = Updates()
    cache = [{"symbol": "A", "id": str(number)} for number in range(5)]
    updates.add_trades(cache[:2])
    updates.add_trades(cache[:4])
    updates.add_trades(cache)
    taken = [each["id"] for each in iter(updates.pop_trade, None)]
    assert taken == ["0", "1", "2", "3", "4"]


async def test_trades_that_cannot_be_published_in_time_fail_the_feed() -> None:
    updates = Updates()
    updates.add_trades([{"symbol": "A", "id": str(number)} for number in range(50_001)])
    with pytest.raises(TooSlow):
        await updates.wait()


def test_lost_book_is_found_by_its_symbol_alone() -> None:
    updates = Updates()
    updates.lose_book("orderbook::BTC/USDT:USDT", "gap")
    updates.lose_book("orderbook@ETH/USDT", "checksum")
    assert updates.pop_lost_books(["BTC/USDT", "1ETH/USDT"]) == {}
    assert updates.pop_lost_books(["BTC/USDT:USDT", "ETH/USDT"]) == {
        "BTC/USDT:USDT": "gap",
        "ETH/USDT": "checksum",
    }
    assert updates.pop_lost_books(["ETH/USDT"]) == {}


def test_options_can_be_given_by_variables() -> None:
    table = {"symbols": "BTC/USD, ETH/USD", "streams": "PRICE", "depth": "5", "sandbox": "true"}
    options = read_options(CcxtOptions, FeedOptions(ManualClock(), name="k", options=table))
    assert options.symbols == ("BTC/USD", "ETH/USD")
    assert (options.streams, options.depth, options.sandbox) == ((Stream.PRICE,), 5, True)


def test_private_stream_of_a_venue_is_refused() -> None:
    options = FeedOptions(ManualClock(), name="k", options={"streams": "USER_DATA"})
    with pytest.raises(FeedError, match=r"feed\.k\.streams: a venue has PRICE, TRADES"):
        read_options(CcxtOptions, options)
