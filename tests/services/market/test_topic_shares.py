"""Shares of topics: what one publisher or org creates leaves room for all others."""

from typing import Any

import pytest

from server.core.errors import FloorcastError, LimitError
from server.core.limits.shares import Owner, Quota, ShareLimits
from server.services import PublishingConfig, TopicSharesConfig
from server.services.market.client_publishing import publish_reply
from tests.kit.rigs.market import PRICE, MarketRig, trader

SMALL = ShareLimits(Quota(6), Quota(4), Quota(2))


async def rig(limits: ShareLimits = SMALL) -> MarketRig:
    topics = TopicSharesConfig(limits, silent_seconds=60.0)
    return await MarketRig.create(publishing=PublishingConfig(topics=topics))


async def code_of(
    market: MarketRig, topic: str, user: str = "ann", org: str = "acme", **more: Any
) -> str:
    """Publish one message of a user; "ok" or the code of the error."""
    message = {"topic": topic, "data": PRICE, **more}
    reply = publish_reply(await market.client_publishing.publish(trader(user, org), [message]))
    if reply["ok"]:
        return "ok"
    error: Any = reply["error"]
    return str(error["code"])


async def test_publisher_at_its_share_keeps_its_topics_and_others_get_theirs() -> None:
    market = await rig()
    codes = [await code_of(market, f"PRICE:A{number}") for number in range(4)]
    assert codes == ["ok", "ok", "limit.share", "limit.share"]
    assert await code_of(market, "PRICE:A0") == "ok", "a topic that it has"
    assert await code_of(market, "PRICE:B0", "bob") == "ok", "another publisher of the org"
    assert await code_of(market, "PRICE:C0", "cid", "other") == "ok"
    await market.price("FEED")


async def test_org_at_its_share_leaves_room_for_other_orgs() -> None:
    market = await rig()
    codes = [await code_of(market, f"PRICE:{user}", user) for user in "ABCDE"]
    assert codes == ["ok"] * 4 + ["limit.share"]
    assert await code_of(market, "PRICE:Z", "eve", "other") == "ok"


async def test_full_server_refuses_new_topics_and_keeps_known_ones() -> None:
    market = await rig(ShareLimits(Quota(2), Quota(), Quota()))
    assert await code_of(market, "PRICE:A") == "ok"
    assert await code_of(market, "PRICE:B", "bob", "other") == "ok"
    assert await code_of(market, "PRICE:C") == "server.overloaded"
    with pytest.raises(LimitError):
        await market.price("D")
    assert await code_of(market, "PRICE:A") == "ok"


async def test_silent_topics_make_room_and_the_oldest_goes_first() -> None:
    market = await rig()
    for symbol in ("A", "B"):
        assert await code_of(market, f"PRICE:{symbol}") == "ok"
        market.clock.advance(20)
    market.clock.advance(21)
    assert await code_of(market, "PRICE:C") == "ok"
    assert await market.broker.latest("PRICE:A") is None
    assert await market.broker.latest("PRICE:B") is not None
    assert await code_of(market, "PRICE:D") == "limit.share", "B has not been silent for so long"
    topics = market.publishing.topics
    assert (topics.evicted_count, topics.refused_count) == (1, 1)


async def test_watched_topic_is_not_evicted() -> None:
    market = await rig()
    await market.client("reader", "PRICE:A")
    assert [await code_of(market, f"PRICE:{symbol}") for symbol in "AB"] == ["ok", "ok"]
    market.clock.advance(61)
    assert await code_of(market, "PRICE:C") == "ok"
    assert await market.broker.latest("PRICE:A") is not None
    assert await market.broker.latest("PRICE:B") is None


async def test_evicted_topic_begins_a_new_epoch() -> None:
    market = await rig()
    await code_of(market, "TRADES:A", data={"trades": []})
    seen = await market.broker.head("TRADES:A")
    market.clock.advance(61)
    assert [await code_of(market, f"PRICE:{symbol}") for symbol in "BC"] == ["ok", "ok"]
    assert await market.broker.since("TRADES:A", seen) is None
    market.clock.advance(61)
    await code_of(market, "TRADES:A", data={"trades": []})
    assert (await market.broker.head("TRADES:A")).epoch != seen.epoch


async def test_evicted_topic_is_unknown_until_it_is_published_again() -> None:
    market = await rig()
    await market.kept.start()

    async def known() -> list[str]:
        await market.instruments.flush()
        found, _ = await market.instruments.find(trader())
        return [each.symbol for each in found]

    for symbol in "ABC":
        await code_of(market, f"PRICE:{symbol}")
        market.clock.advance(61)
    assert await known() == ["B", "C"]
    assert await code_of(market, "PRICE:A") == "ok"
    assert await known() == ["A", "C"]
    assert sorted(await market.kept.items("topics")) == ["PRICE:A", "PRICE:C"]


async def test_evicted_book_takes_no_change_before_a_snapshot() -> None:
    market = await rig()
    levels = {"bids": [["1", "1"]], "asks": [["2", "1"]]}
    assert await code_of(market, "ORDERBOOK:A", data=levels, type="snapshot") == "ok"
    market.clock.advance(61)
    assert [await code_of(market, f"PRICE:{symbol}") for symbol in "BC"] == ["ok", "ok"]
    market.clock.advance(61)
    change = {"bids": [["1", "2"]], "asks": []}
    assert await code_of(market, "ORDERBOOK:A", data=change) != "ok"
    assert await code_of(market, "ORDERBOOK:A", data=levels, type="snapshot") == "ok"
    assert await code_of(market, "ORDERBOOK:A", data=change) == "ok"


async def test_states_are_bounded_in_bytes() -> None:
    market = await rig(ShareLimits(Quota(), Quota(), Quota(size_bytes=10_000)))
    large = {**PRICE, "note": "x" * 6_000}
    assert await code_of(market, "PRICE:A", data=large) == "ok"
    assert await code_of(market, "PRICE:B", data=large) == "limit.share"
    assert await code_of(market, "PRICE:A", data={**PRICE, "note": "x" * 9_500}) == "limit.share"
    assert await code_of(market, "PRICE:A") == "ok"
    assert await code_of(market, "PRICE:B", data=large) == "ok"


async def test_books_are_bounded_by_their_levels() -> None:
    market = await rig(ShareLimits(Quota(), Quota(), Quota(size_bytes=100_000)))

    def levels(count: int) -> dict[str, object]:
        return {"bids": [[f"{price}.0", "1"] for price in range(1, count + 1)], "asks": []}

    for symbol in "AB":
        assert (
            await code_of(market, f"ORDERBOOK:{symbol}", data=levels(100), type="snapshot") == "ok"
        )
    assert await code_of(market, "ORDERBOOK:C", data=levels(150), type="snapshot") == "limit.share"
    empty: dict[str, object] = {"bids": [], "asks": []}
    assert await code_of(market, "ORDERBOOK:A", data=empty, type="snapshot") == "ok"
    assert await code_of(market, "ORDERBOOK:C", data=levels(150), type="snapshot") == "ok"


async def test_refused_message_leaves_no_topic() -> None:
    market = await rig()
    crossed = {"bids": [["2", "1"]], "asks": [["1", "1"]]}
    for number in range(5):
        code = await code_of(market, f"ORDERBOOK:A{number}", data=crossed, type="snapshot")
        assert code == "request.invalid"
    assert len(market.publishing.topics) == 0
    await market.broker.stop()
    assert await code_of(market, "PRICE:A") == "server.draining"
    assert len(market.publishing.topics) == 0


async def test_topic_counts_to_its_last_publisher() -> None:
    market = await rig()
    assert [await code_of(market, f"PRICE:{symbol}") for symbol in "AB"] == ["ok", "ok"]
    assert await code_of(market, "PRICE:A", "bob") == "ok"
    assert await code_of(market, "PRICE:C") == "ok"
    assert await code_of(market, "PRICE:A") == "limit.share", "it is bob's now"
    assert await code_of(market, "PRICE:D", "bob") == "ok"
    assert await code_of(market, "PRICE:E", "bob") == "limit.share"


async def test_failing_eviction_tells_the_publisher() -> None:
    market = await rig()
    assert [await code_of(market, f"PRICE:{symbol}") for symbol in "AB"] == ["ok", "ok"]
    market.clock.advance(61)

    async def forget(channel: str, *, silent_since_ms: int | None = None) -> bool:
        return False

    market.broker.forget = forget  # type: ignore[method-assign]
    with pytest.raises(FloorcastError) as refused:
        await market.publishing.publish("PRICE:C", PRICE, org="acme", owner=Owner("acme", "ann"))
    assert refused.value.code == "limit.share"
