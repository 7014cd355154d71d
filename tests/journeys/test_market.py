"""Test the market over real sockets: subscriptions, snapshots, updates and refusals."""

import asyncio
import json

import pytest

from client_sdk.contract import Scope
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, running


async def test_subscriber_gets_a_snapshot_then_updates_in_order() -> None:
    async with running() as node:
        publish = node.server.market.publishing.publish
        await publish("PRICE:BTCUSDT", PRICE)
        await publish("PRICE:BTCUSDT", {**PRICE, "last": "1.02"})
        client = await RawClient.connect(node.port, node.token())
        answer = await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
        topic = answer["topics"]["PRICE:BTCUSDT"]
        assert (topic["status"], topic["seq"], topic["interval_ms"]) == ("CONNECTED", 2, 0)
        assert topic["snapshot"] == {
            "stream": "PRICE",
            "symbol": "BTCUSDT",
            "type": "snapshot",
            "epoch": topic["epoch"],
            "seq": 2,
            "prev": 1,
            "ts": int(node.clock.time() * 1000),
            "data": {**PRICE, "last": "1.02"},
        }
        for seq in (3, 4, 5):
            await publish("PRICE:BTCUSDT", PRICE)
            event, message = await client.event()
            assert event == "price"
            assert (message["type"], message["seq"], message["prev"]) == ("update", seq, seq - 1)
            assert message["data"] == PRICE
        client.cut()
        await node.until_empty()


async def test_subscribe_during_a_flush_gets_no_duplicate() -> None:
    async with running() as node:
        publish = node.server.market.publishing.publish
        early = await RawClient.connect(node.port, node.token())
        late = await RawClient.connect(node.port, node.token("bob"))
        await early.call("subscribe", {"topics": ["PRICE:A"]})
        late.send(f"42/market,7{json.dumps(['subscribe', {'topics': ['PRICE:A']}])}")
        await publish("PRICE:A", PRICE)
        answer = json.loads((await late.text())[len("43/market,7") :])[0]
        seq = answer["topics"]["PRICE:A"]["seq"]
        await publish("PRICE:A", PRICE)
        _, message = await late.event()
        assert message["seq"] == seq + 1
        assert message["prev"] == seq
        for each in (early, late):
            each.cut()
        await node.until_empty()


async def test_refused_topic_does_not_affect_the_others() -> None:
    async with running({"limits.topics_per_connection": 2}) as node:
        client = await RawClient.connect(node.port, node.token(symbols=["BTC*", "ETH*"]))
        topics = ["PRICE:BTCUSDT", "PRICE:btc", "NOISE:BTC", "PRICE", "PRICE:AAPL", "USER_DATA:BTC"]
        answer = await client.call("subscribe", {"topics": topics})
        assert answer["ok"]
        codes = {
            name: each["error"]["code"] if each["status"] == "ERROR" else each["status"]
            for name, each in answer["topics"].items()
        }
        assert codes == {
            "PRICE:BTCUSDT": "CONNECTED",
            "PRICE:btc": "topic.unknown",
            "NOISE:BTC": "topic.unknown",
            "PRICE": "topic.unknown",
            "PRICE:AAPL": "auth.forbidden",
            "USER_DATA:BTC": "topic.unknown",
        }
        answer = await client.call("subscribe", {"topics": ["PRICE:ETH", "PRICE:ETHUSDT"]})
        assert answer["topics"]["PRICE:ETH"]["status"] == "CONNECTED"
        assert answer["topics"]["PRICE:ETHUSDT"]["error"]["code"] == "limit.topics"
        answer = await client.call("subscribe", {"topics": ["PRICE:ETH"]})
        assert answer["topics"]["PRICE:ETH"]["status"] == "CONNECTED", "it is subscribed already"
        client.cut()
        await node.until_empty()


async def test_subscriptions_are_listed_and_removed() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:A", "PRICE:B"]})
        listed = (await client.call("subscriptions", {}))["topics"]
        assert {name: each["status"] for name, each in listed.items()} == {
            "PRICE:A": "CONNECTED",
            "PRICE:B": "CONNECTED",
        }
        answer = await client.call("unsubscribe", {"topics": ["PRICE:A", "PRICE:C", "nonsense"]})
        assert answer["topics"]["PRICE:A"] == {"status": "DISCONNECTED"}
        assert answer["topics"]["PRICE:C"] == {"status": "DISCONNECTED"}
        assert answer["topics"]["nonsense"]["error"]["code"] == "topic.unknown"
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        await node.server.market.publishing.publish("PRICE:B", PRICE)
        _, message = await client.event()
        assert message["symbol"] == "B"
        client.cut()
        await node.until_empty()


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, "request.invalid"),
        ({"topics": []}, "request.invalid"),
        ({"topics": "PRICE:A"}, "request.invalid"),
        ({"topics": [1]}, "request.invalid"),
        ({"topics": ["PRICE:A"], "interval_ms": "100"}, "request.invalid"),
        ({"topics": ["PRICE:A"], "unknown": 1}, "request.invalid"),
        ([1, 2], "request.invalid"),
        ("PRICE:A", "request.invalid"),
    ],
)
async def test_invalid_request_returns_an_error_message(payload: object, code: str) -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        answer = await client.call("subscribe", payload)
        assert answer["ok"] is False
        assert answer["error"]["code"] == code
        assert answer["error"]["message"]
        assert (await client.call("subscriptions", {}))["ok"], "the connection stays open"
        client.cut()


async def test_unknown_events_and_server_methods_are_refused() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        for event in ("nonsense", "trigger_event", "joined", "__init__", "on_connect", "message"):
            answer = await client.call(event, {})
            assert answer["error"]["code"] == "request.unknown_event"
        client.send('42/market,7["subscriptions",{},{}]')
        assert json.loads((await client.text())[11:])[0]["error"]["code"] == "request.invalid"
        client.cut()


async def test_refused_event_without_ack_gets_an_error_event() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        client.send('42/market,["nonsense"]')
        event, error = await client.event()
        assert (event, error["code"]) == ("error", "request.unknown_event")
        client.send('42/market,["subscriptions"]')
        assert (await client.call("subscriptions", {}))["ok"], "a success sends no event"
        client.cut()


async def test_subscribe_needs_the_scope() -> None:
    async with running() as node:
        token = node.token(scopes=[Scope.SESSION_JOIN])
        client = await RawClient.connect(node.port, token)
        answer = await client.call("subscribe", {"topics": ["PRICE:A"]})
        assert answer["error"]["code"] == "auth.forbidden"
        client.cut()


async def test_client_leaves_a_namespace_and_rejoins_it() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:A"]})
        client.send("41/market,")
        client.send('42/market,["subscriptions"]')
        while node.residue()["registry"]:
            await asyncio.sleep(0)
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        await client.join(node.token())
        assert (await client.call("subscriptions", {}))["topics"] == {}
        client.cut()
        await node.until_empty()


@pytest.mark.behaviour("D39")
@pytest.mark.behaviour("D38")
async def test_broadcast_reaches_open_connections_while_others_are_cut() -> None:
    async with running() as node:
        clients = [await RawClient.connect(node.port, node.token(f"u{i}")) for i in range(6)]
        for client in clients:
            await client.call("subscribe", {"topics": ["PRICE:A"]})
        for client in clients[::2]:
            client.cut()
        for _ in range(3):
            await node.server.market.publishing.publish("PRICE:A", PRICE)
        for client in clients[1::2]:
            assert [(await client.event())[1]["seq"] for _ in range(3)] == [1, 2, 3]
        await until(lambda: len(node.server.clients.registry) == 3)
        for client in clients[1::2]:
            client.cut()
        await node.until_empty()


@pytest.mark.behaviour("D36")
async def test_market_message_size_is_limited() -> None:
    async with running({"limits.message_bytes": 4096}) as node:
        client = await RawClient.connect(node.port, node.token())

        def price(size: int) -> dict[str, object]:
            room = size - len(json.dumps({**PRICE, "note": ""}, separators=(",", ":")))
            return {"topic": "PRICE:A", "data": {**PRICE, "note": "x" * room}}

        answer = await client.call("publish", {"messages": [price(4096)]})
        assert answer["positions"][0]["seq"] == 1
        answer = await client.call("publish", {"messages": [price(4097), price(1000)]})
        assert answer["error"]["code"] == "limit.payload"
        assert answer["positions"][1]["seq"] == 2, "the other message is published"
        # A frame far over the limit closes the connection unread (RFC 6455, 7.4.1).
        client.send("4" + "x" * 8192)
        assert await client.until_closed() == b"\x88\x02" + (1009).to_bytes(2, "big")
        await node.until_empty()
