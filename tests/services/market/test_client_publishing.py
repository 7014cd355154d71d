"""What clients publish: judged one by one, idempotent by id, kept apart by org and user."""

from typing import Any

import pytest

from client_sdk.contract import Scope
from server.access import Principal
from server.core.errors import AccessError
from server.services import PublishingConfig
from server.services.market.client_publishing import publish_reply
from tests.kit.rigs.market import PRICE, MarketRig, trader


async def submit(
    desk: MarketRig, *messages: object, who: Principal | None = None
) -> dict[str, Any]:
    """The answer that the publisher gets."""
    return publish_reply(await desk.client_publishing.publish(who or trader("feed"), messages))


def price(symbol: str = "A", **more: object) -> dict[str, object]:
    return {"topic": f"PRICE:{symbol}", "data": PRICE, **more}


async def test_positions_come_back_in_the_order_of_the_messages() -> None:
    desk = await MarketRig.create()
    answer = await submit(desk, price("A"), price("B"), price("A"))
    assert answer == {
        "ok": True,
        "positions": [
            {"epoch": "e1", "seq": 1},
            {"epoch": "e1", "seq": 1},
            {"epoch": "e1", "seq": 2},
        ],
    }


async def test_what_is_wrong_is_refused_alone_and_the_others_are_published() -> None:
    desk = await MarketRig.create(publishing=PublishingConfig(message_bytes=500))
    answer = await submit(
        desk,
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
    assert answer["ok"] is False
    codes = [
        each["error"]["code"] if "error" in each else each["seq"] for each in answer["positions"]
    ]
    assert codes == [1, "topic.unknown"] + ["request.invalid"] * 3 + ["limit.payload"] + [
        "request.invalid"
    ] * 5 + [2]
    assert answer["error"]["code"] == "topic.unknown"
    assert answer["error"]["details"]["index"] == 1


async def test_publishing_needs_the_scope_and_the_symbol() -> None:
    desk = await MarketRig.create()
    listener = Principal("eve", "default", frozenset({Scope.MARKET_READ.value}), 1e12)
    with pytest.raises(AccessError) as refused:
        await submit(desk, price(), who=listener)
    assert refused.value.code == "auth.forbidden"
    scopes = frozenset({Scope.MARKET_PUBLISH.value})
    narrow = Principal("feed", "default", scopes, 1e12, symbols=("BTC*",))
    answer = await submit(desk, price("ETH"), price("BTCUSDT"), who=narrow)
    assert [each.get("seq") for each in answer["positions"]] == [None, 1]
    assert answer["error"]["code"] == "auth.forbidden"


async def test_the_same_id_and_message_is_one_message_and_another_is_a_conflict() -> None:
    desk = await MarketRig.create()
    ann = await desk.client("ann", "PRICE:A")
    first = await submit(desk, price(id="1"))
    assert await submit(desk, price(id="1")) == first
    other = await submit(desk, price(id="1", data={**PRICE, "last": "2"}))
    assert other["error"]["code"] == "publish.conflict"
    desk.settle()
    assert len(ann.messages()) == 1
    desk.clock.advance(121)
    again = await submit(desk, price(id="1"))
    assert again["positions"][0]["seq"] == 2, "the window has passed"


async def test_ids_of_other_publishers_and_topics_are_other_ids() -> None:
    desk = await MarketRig.create()
    seqs = [
        (await submit(desk, price(symbol, id="1"), who=who))["positions"][0]["seq"]
        for symbol, who in (
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
async def test_a_private_message_reaches_every_device_of_its_user_and_nobody_else(
    topic: str,
) -> None:
    desk = await MarketRig.create()
    links = {}
    for name, who in {
        "ann-phone": trader("ann"),
        "ann-desk": trader("ann"),
        "bob": trader("bob"),
        "ann-of-acme": trader("ann", "acme"),
    }.items():
        links[name] = desk.connect(name, who)
        reply = await desk.service.subscribe(name, who, [topic])
        assert reply[topic]["status"] == "CONNECTED"
    canary = {"order_id": "canary", "nested": {"a": [1, {"b": None}]}, "status": "NEW"}
    await submit(desk, {"topic": topic, "user": "ann", "data": canary})
    desk.settle()
    assert {name for name, link in links.items() if link.written} == {"ann-phone", "ann-desk"}
    [message] = links["ann-phone"].messages(topic.lower())
    assert (message["stream"], message["symbol"]) == (topic, None)
    assert message["data"] == canary


@pytest.mark.behaviour("D10")
async def test_a_message_to_a_user_whom_nobody_knows_reaches_nobody_and_is_no_error() -> None:
    desk = await MarketRig.create()
    bob = await desk.client("bob", "USER_DATA")
    answer = await submit(desk, {"topic": "USER_DATA", "user": "nobody", "data": {}})
    assert answer["ok"]
    desk.settle()
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
async def test_each_stream_has_a_shape_and_what_does_not_fit_is_refused(
    topic: str, data: dict[str, object]
) -> None:
    desk = await MarketRig.create()
    user = None if ":" in topic else "ann"
    answer = await submit(desk, {"topic": topic, "data": data, **({"user": user} if user else {})})
    assert answer["error"]["code"] == "request.invalid"
    assert topic in answer["error"]["message"]
