"""Instruments: set by publishers, listed and followed by clients, and their trading state."""

from typing import Any

import pytest

from client_sdk.contract import ErrorCode
from server.access import Principal
from server.core.errors import FloorcastError, LimitError, RequestError
from server.core.limits.shares import Owner, Quota, ShareLimits
from tests.kit.rigs.market import STALE, MarketRig, trader


async def instrument_market() -> MarketRig:
    """A market whose kept values are read."""
    market = await MarketRig.create(freshness=STALE)
    await market.kept.start()
    return market


async def found(market: MarketRig, principal: Principal | None = None, **query: Any) -> list[Any]:
    """What a client gets, without `has_more`."""
    instruments, _ = await market.instruments.find(principal or trader(), **query)
    return [each.body() for each in instruments]


def narrowed(*symbols: str) -> Principal:
    """A principal that may use some symbols only."""
    return Principal("eve", "default", frozenset({"market:read"}), 1e12, symbols=symbols)


async def test_first_message_of_a_symbol_makes_its_instrument() -> None:
    market = await instrument_market()
    await market.price("B")
    await market.trade("A", 1)
    await market.trade("B", 1)
    assert await found(market) == []
    await market.instruments.flush()
    assert await found(market) == [
        {"status": "OPEN", "symbol": "A", "streams": ["TRADES"]},
        {"status": "OPEN", "symbol": "B", "streams": ["PRICE", "TRADES"]},
    ]


async def test_private_topics_are_no_instruments() -> None:
    market = await instrument_market()
    await market.publishing.publish("ORDER_UPDATES", {}, user="ann")
    await market.instruments.flush()
    assert len(market.instruments.table) == 0


async def test_fields_are_set_one_by_one_and_null_removes_one() -> None:
    market = await instrument_market()
    await market.instruments.put("A", {"base": "A", "tick_size": "0.5", "venue": {"code": "X"}})
    await market.instruments.put("A", {"status": "HALTED", "venue": None})
    assert await found(market) == [
        {"status": "HALTED", "base": "A", "tick_size": "0.5", "symbol": "A", "streams": []}
    ]


@pytest.mark.parametrize(
    ("symbol", "fields"),
    [
        *(("a", {}), ("A@1", {}), ("A*", {})),
        *(("A", {"tick_size": "0"}), ("A", {"tick_size": 1}), ("A", {"lot_size": "-1"})),
        *(("A", {"status": "ASLEEP"}), ("A", {"base": ""})),
    ],
)
async def test_invalid_instrument_is_refused(symbol: str, fields: dict[str, object]) -> None:
    market = await instrument_market()
    with pytest.raises(RequestError):
        await market.instruments.put(symbol, fields)
    assert len(market.instruments.table) == 0


async def test_large_instrument_is_refused() -> None:
    market = await instrument_market()
    with pytest.raises(LimitError):
        await market.instruments.put("A", {"note": "x" * 5000})


async def test_client_finds_what_matches_and_what_its_token_allows() -> None:
    market = await instrument_market()
    for symbol in ("BTCUSDT", "BTCEUR", "ETHUSDT", "B"):
        await market.instruments.put(symbol, {"base": symbol[:3]})
    names = [each["symbol"] for each in await found(market, pattern="BTC*")]
    assert names == ["BTCEUR", "BTCUSDT"]
    assert [each["symbol"] for each in await found(market, pattern="*USDT")] == [
        "BTCUSDT",
        "ETHUSDT",
    ]
    assert [each["symbol"] for each in await found(market, symbols=["B", "X"])] == ["B"]
    assert [each["symbol"] for each in await found(market, narrowed("ETH*"))] == ["ETHUSDT"]
    first, has_more = await market.instruments.find(trader(), limit=2)
    assert ([each.symbol for each in first], has_more) == (["B", "BTCEUR"], True)
    rest, has_more = await market.instruments.find(trader(), after="BTCEUR", limit=2)
    assert ([each.symbol for each in rest], has_more) == (["BTCUSDT", "ETHUSDT"], False)


async def test_follower_gets_each_change_that_it_may_see() -> None:
    market = await instrument_market()
    ann, eve = market.connect("ann"), market.connect("eve")
    market.instruments.follow("ann", trader(), pattern="BTC*")
    market.instruments.follow("eve", narrowed("ETH*"))
    await market.instruments.put("BTCUSDT", {"base": "BTC"})
    await market.instruments.put("BTCUSDT", {"base": "BTC"})
    await market.price("BTCUSDT")
    await market.instruments.flush()
    await market.instruments.put("ETHUSDT", {"status": "CLOSED"})
    assert [each.get("base") for each in ann.messages("instrument")] == ["BTC", "BTC"]
    assert ann.messages("instrument")[1]["streams"] == ["PRICE"]
    assert [each["symbol"] for each in eve.messages("instrument")] == ["ETHUSDT"]
    market.instruments.set_principal("eve", narrowed("XRP*"))
    await market.instruments.put("ETHUSDT", {"status": "OPEN"})
    await market.service.remove_connection("ann")
    await market.instruments.put("BTCUSDT", {"base": "XBT"})
    assert len(eve.messages("instrument")) == 1
    assert len(ann.messages("instrument")) == 2


async def test_reply_knows_a_topic_that_lost_its_messages() -> None:
    market = await instrument_market()
    await market.price("A")
    await market.instruments.flush()
    await market.broker.forget("PRICE:A")
    market.connect("ann")
    reply = await market.subscribe("ann", "PRICE:A", "TRADES:A", "PRICE:B")
    assert [each["known"] for each in reply.values()] == [True, False, False]


async def test_halted_and_closed_markets_are_not_stale() -> None:
    market = await instrument_market()
    await market.price("A")
    await market.book("A", [("1", "1")], [("2", "1")], "snapshot")
    ann = await market.client("ann", "PRICE:A", "ORDERBOOK:A@5")
    await market.instruments.put("A", {"status": "HALTED"})
    states = [(each["stream"], each["state"]) for each in ann.messages("status")]
    assert states == [("PRICE", "HALTED"), ("ORDERBOOK", "HALTED")]
    market.pass_time(60.0)
    assert len(ann.messages("status")) == 2
    market.connect("late")
    reply = await market.subscribe("late", "PRICE:A", "TRADES:A", "ORDERBOOK:A@5")
    assert {each["state"] for each in reply.values()} == {"HALTED"}
    await market.instruments.put("A", {"status": "CLOSED"})
    await market.instruments.put("A", {"status": "OPEN"})
    prices = [each for each in ann.messages("status") if each["stream"] == "PRICE"]
    assert [each["state"] for each in prices] == ["HALTED", "CLOSED", "LIVE"]
    market.pass_time(11.0)
    assert ann.messages("status")[-1]["state"] == "STALE"


async def test_stale_topic_turns_closed() -> None:
    market = await instrument_market()
    await market.price("A")
    ann = await market.client("ann", "PRICE:A")
    market.pass_time(11.0)
    await market.instruments.put("A", {"status": "CLOSED"})
    assert [each["state"] for each in ann.messages("status")] == ["STALE", "CLOSED"]
    # A broker that is down is an alarm at any hour.
    market.freshness.set_broker_up(False)
    market.freshness.set_broker_up(True)
    assert [each["state"] for each in ann.messages("status")][2:] == ["STALE", "CLOSED"]


async def test_recording_goes_on_after_the_broker_was_down() -> None:
    market = await instrument_market()
    await market.price("A")
    put, calls = market.kept.put, 0

    async def failing(*args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        raise FloorcastError(ErrorCode.SERVER_OVERLOADED, "the broker is down")

    market.kept.put = failing  # type: ignore[method-assign]
    await market.instruments.flush()
    market.kept.put = put  # type: ignore[method-assign]
    assert (calls, await found(market)) == (1, [])
    await market.instruments.flush()
    assert len(await found(market)) == 1


async def test_client_that_follows_is_not_exported() -> None:
    market = await instrument_market()
    market.connect("ann", numbered=True)
    market.instruments.follow("ann", trader("ann"))
    market.park("ann")
    assert market.recovery.export_parked("ann", ("default", "ann"), None) is None
    assert not market.instruments.is_followed_by("ann")


async def test_publisher_sets_a_limited_number_of_instruments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = ShareLimits(total=Quota(5), org=Quota(3), publisher=Quota(2))
    monkeypatch.setattr("server.services.market.instruments._SHARES", few)
    market = await instrument_market()
    eve, bob, ann = Owner("evil", "eve"), Owner("evil", "bob"), Owner("acme", "ann")
    for symbol in ("A", "B"):
        await market.instruments.put(symbol, {"base": "X"}, eve)
    await market.instruments.put("D", {"base": "X"}, bob)
    for owner, symbol in ((eve, "C"), (bob, "E")):
        with pytest.raises(LimitError) as refused:
            await market.instruments.put(symbol, {"base": "X"}, owner)
        assert refused.value.code is ErrorCode.LIMIT_SHARE
    await market.instruments.put("A", {"base": "Y"}, eve)
    await market.instruments.put("F", {"base": "X"}, ann)
    await market.instruments.put("G", {"base": "X"})
    assert [each["symbol"] for each in await found(market)] == ["A", "B", "D", "F", "G"]
