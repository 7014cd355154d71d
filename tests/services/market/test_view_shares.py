"""Views of a node are bounded: for a topic, for a user and for an org."""

from typing import Any

from server.access import Principal, anonymous
from tests.kit.rigs.market import MarketRig, trader

LEVELS = {"bids": [["1", "1"]], "asks": [["2", "1"]]}


async def market_with_a_book() -> MarketRig:
    market = await MarketRig.create()
    await market.publishing.publish("ORDERBOOK:A", LEVELS, kind="snapshot")
    return market


async def open_views(
    market: MarketRig, principal: Principal, steps: range, topic: str = "ORDERBOOK:A"
) -> list[str]:
    """Subscribe to a grouped view for each step; returns the codes of the refused ones."""
    name = principal.user_id
    if name not in market.hub:
        market.connect(name, principal)
    wanted = [f"{topic}@5/{step}" for step in steps]
    replies: dict[str, Any] = await market.service.subscribe(name, principal, wanted)
    return [each["error"]["code"] for each in replies.values() if "error" in each]


async def test_user_opens_a_limited_number_of_views_of_a_topic() -> None:
    market = await market_with_a_book()
    assert await open_views(market, trader("eve"), range(1, 34)) == ["limit.share"]
    assert await open_views(market, trader("eve"), range(1, 33)) == []
    await market.service.unsubscribe("eve", trader("eve"), ["ORDERBOOK:A@5/1"])
    assert await open_views(market, trader("eve"), range(33, 34)) == []
    await market.service.remove_connection("eve")
    assert market.hub.channels() == ()


async def test_view_that_is_open_costs_nobody_a_share() -> None:
    market = await market_with_a_book()
    await open_views(market, trader("ann"), range(1, 21))
    assert await open_views(market, trader("bob"), range(1, 53)) == []


async def test_org_or_anonymous_client_takes_no_views_of_another() -> None:
    market = await market_with_a_book()
    for index in range(3):
        other = Principal(f"eve{index}", "evil", frozenset({"market:read"}), 1e12)
        first = 100 * index + 1
        refused = await open_views(market, other, range(first, first + 32))
        assert len(refused) == (32 if index == 2 else 0)
    for index in range(2):
        first = 1000 * (index + 1)
        refused = await open_views(market, anonymous(), range(first, first + 32))
        assert len(refused) == (32 if index else 0)
    assert await open_views(market, trader("ann"), range(5000, 5032)) == []


async def test_views_of_a_user_are_limited_over_all_topics() -> None:
    market = await market_with_a_book()
    codes: list[str] = []
    for symbol in range(40):
        topic = f"ORDERBOOK:S{symbol}"
        await market.publishing.publish(topic, LEVELS, kind="snapshot")
        user = trader("eve")
        if symbol % 20 == 0:
            market.connect(f"eve{symbol}", user)
        wanted = [f"{topic}@5/{step}" for step in range(1, 33)]
        replies: dict[str, Any] = await market.service.subscribe(
            f"eve{symbol // 20 * 20}", user, wanted
        )
        codes += [each["error"]["code"] for each in replies.values() if "error" in each]
    assert set(codes) == {"limit.share"}
    assert len(codes) == 40 * 32 - 1_000
