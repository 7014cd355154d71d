"""Publishing by clients: validation, idempotency, and isolation of orgs and users."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from client_sdk.contract import Scope
from server.access import Principal
from server.core.errors import AccessError
from server.services import PublishingConfig
from server.services.market.client_publishing import publish_reply
from tests.kit.rigs.market import PRICE, MarketRig, trader


async def submit(
    market: MarketRig, *messages: object, principal: Principal | None = None
) -> dict[str, Any]:
    """The reply that the publisher gets."""
    return publish_reply(
        await market.client_publishing.publish(principal or trader("feed"), messages)
    )


def price(symbol: str = "A", **more: object) -> dict[str, object]:
    return {"topic": f"PRICE:{symbol}", "data": PRICE, **more}


async def test_positions_have_the_order_of_the_messages() -> None:
    market = await MarketRig.create()
    reply = await submit(market, price("A"), price("B"), price("A"))
    assert reply == {
        "ok": True,
        "positions": [
            {"epoch": "e1", "seq": 1},
            {"epoch": "e1", "seq": 1},
            {"epoch": "e1", "seq": 2},
        ],
    }


async def test_invalid_messages_are_refused_and_valid_ones_published() -> None:
    market = await MarketRig.create(publishing=PublishingConfig(message_bytes=500))
    reply = await submit(
        market,
        price(),
        {"topic": "NOISE:A", "data": {}},
        {"topic": "PRICE:A", "data": {"bid": 1}},
        "nonsense",
        price(extra=1),
        price(data={**PRICE, "more": "x" * 500}),
        {"topic": "ORDER_UPDATES", "data": {}},
        price(user="ann"),
        {"topic": "TRADES:A", "data": {"trades": []}, "type": "snapshot"},
        price(type="heartbeat"),
        price(id=""),
        price(),
    )
    assert reply["ok"] is False
    codes = [
        each["error"]["code"] if "error" in each else each["seq"] for each in reply["positions"]
    ]
    assert codes == [1, "topic.unknown"] + ["request.invalid"] * 3 + ["limit.payload"] + [
        "request.invalid"
    ] * 5 + [2]
    assert reply["error"]["code"] == "topic.unknown"
    assert reply["error"]["details"]["index"] == 1


async def test_publishing_needs_the_scope_and_the_symbol() -> None:
    market = await MarketRig.create()
    reader = Principal("eve", "default", frozenset({Scope.MARKET_READ.value}), 1e12)
    with pytest.raises(AccessError) as refused:
        await submit(market, price(), principal=reader)
    assert refused.value.code == "auth.forbidden"
    scopes = frozenset({Scope.MARKET_PUBLISH.value})
    narrow = Principal("feed", "default", scopes, 1e12, symbols=("BTC*",))
    reply = await submit(market, price("ETH"), price("BTCUSDT"), principal=narrow)
    assert [each.get("seq") for each in reply["positions"]] == [None, 1]
    assert reply["error"]["code"] == "auth.forbidden"


async def test_publisher_narrowed_to_symbols_has_no_private_topics_of_others() -> None:
    market = await MarketRig.create()
    scopes = frozenset({Scope.MARKET_PUBLISH.value})
    feed = Principal("feed", "default", scopes, 1e12, symbols=("BTC*",))
    desk = replace(feed, users=("desk-*",))

    async def code_for(user: str, principal: Principal) -> object:
        message = {"topic": "ORDER_UPDATES", "data": {}, "user": user}
        reply = await submit(market, message, principal=principal)
        return "ok" if reply["ok"] else reply["error"]["code"]

    assert await code_for("ann", feed) == "auth.forbidden"
    assert await code_for("feed", feed) == "ok"
    assert await code_for("desk-7", desk) == "ok"
    assert await code_for("ann", desk) == "auth.forbidden"
    assert await code_for("ann", trader("feed")) == "ok"


async def test_repeated_id_is_one_message_or_a_conflict() -> None:
    market = await MarketRig.create()
    ann = await market.client("ann", "PRICE:A")
    first = await submit(market, price(id="1"))
    assert await submit(market, price(id="1")) == first
    other = await submit(market, price(id="1", data={**PRICE, "last": "2"}))
    assert other["error"]["code"] == "publish.conflict"
    market.settle()
    assert len(ann.messages()) == 1
    market.clock.advance(121)
    again = await submit(market, price(id="1"))
    assert again["positions"][0]["seq"] == 2, "the idempotency window has ended"


async def test_ids_are_separate_for_each_publisher_and_topic() -> None:
    market = await MarketRig.create()
    seqs = [
        (await submit(market, price(symbol, id="1"), principal=principal))["positions"][0]["seq"]
        for symbol, principal in (
            ("A", trader("feed")),
            ("B", trader("feed")),
            ("A", trader("other")),
            ("A", trader("feed", "acme")),
        )
    ]
    assert seqs == [1, 1, 2, 3]


PRIVATE = ("USER_DATA", "BOT_STATUS", "RISK_ALERTS", "ORDER_UPDATES")


@pytest.mark.behaviour("A7", "B1", "B4", "D8", "D43")
@pytest.mark.parametrize("topic", PRIVATE)
async def test_private_message_reaches_only_devices_of_its_user(
    topic: str,
) -> None:
    market = await MarketRig.create()
    links = {}
    for name, principal in {
        "ann-phone": trader("ann"),
        "ann-desk": trader("ann"),
        "bob": trader("bob"),
        "ann-of-acme": trader("ann", "acme"),
    }.items():
        links[name] = market.connect(name, principal)
        reply = await market.service.subscribe(name, principal, [topic])
        assert reply[topic]["status"] == "CONNECTED"
    canary = {"order_id": "canary", "nested": {"a": [1, {"b": None}]}, "status": "NEW"}
    await submit(market, {"topic": topic, "user": "ann", "data": canary})
    market.settle()
    assert {name for name, link in links.items() if link.written} == {"ann-phone", "ann-desk"}
    [message] = links["ann-phone"].messages(topic.lower())
    assert (message["stream"], message["symbol"]) == (topic, None)
    assert message["data"] == canary


@pytest.mark.behaviour("D10")
async def test_message_to_unknown_user_is_accepted() -> None:
    market = await MarketRig.create()
    bob = await market.client("bob", "USER_DATA")
    reply = await submit(market, {"topic": "USER_DATA", "user": "nobody", "data": {}})
    assert reply["ok"]
    market.settle()
    assert bob.written == []


@pytest.mark.parametrize(
    ("topic", "data"),
    [
        ("ORDER_UPDATES", {"order_id": ["x"]}),
        ("ORDER_UPDATES", {"price": 1.5}),
        ("BOT_STATUS", {"status": 5}),
        ("RISK_ALERTS", {"message": {"a": 1}}),
        ("TRADES:A", {"trades": [{"id": 1, "price": "1", "qty": "1", "side": "up", "ts": 1}]}),
        ("TRADES:A", {"trades": {}}),
        ("TRADES:A", {}),
    ],
)
async def test_data_that_does_not_match_its_stream_is_refused(
    topic: str, data: dict[str, object]
) -> None:
    market = await MarketRig.create()
    user = None if ":" in topic else "ann"
    reply = await submit(market, {"topic": topic, "data": data, **({"user": user} if user else {})})
    assert reply["error"]["code"] == "request.invalid"
    assert topic in reply["error"]["message"]


@pytest.mark.parametrize(
    "message",
    [
        {"topic": "PRICE:A", "data": PRICE},
        {"topic": "PRICE:A", "data": {**PRICE, "bid": "1e999"}},
        {"topic": "PRICE:A", "data": {}},
        {"topic": "PRICE:A", "data": [PRICE]},
        {"topic": "PRICE:A", "data": None},
        {"topic": "PRICE:A", "user": "ann"},
        {"topic": "", "data": PRICE},
        {"topic": "PRICE:" + "A" * 200, "data": PRICE},
        {"topic": "price:A", "data": PRICE},
        {"topic": "ORDERBOOK:A@10", "data": {"bids": [], "asks": []}},
        {"topic": "ORDER_UPDATES", "data": {}},
        {"topic": ["PRICE:A"], "data": PRICE},
        {"topic": 5, "data": PRICE},
    ],
)
async def test_message_without_options_gets_the_reply_of_one_that_spells_them_out(
    message: dict[str, object],
) -> None:
    options = {"type": "update", "id": None, "source_ts": None}
    short = await submit(await MarketRig.create(), message)
    full = await submit(await MarketRig.create(), {**options, **message})
    assert short == full


@pytest.mark.parametrize(("message_seconds", "turns"), [(0.0, 0), (0.0002, 12), (0.1, 12)])
async def test_batch_lets_others_go_first_by_the_time_it_takes(
    message_seconds: float, turns: int
) -> None:
    market = await MarketRig.create()
    market.publish_seconds = message_seconds
    others = 0

    async def count_turns() -> None:
        nonlocal others
        while True:
            await asyncio.sleep(0)
            others += 1

    counting = asyncio.create_task(count_turns())
    await asyncio.sleep(0)
    began = others
    await submit(market, *[price()] * 100)
    counting.cancel()
    assert others - began == turns
