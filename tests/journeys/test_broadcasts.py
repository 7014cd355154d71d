"""Test broadcasts over real sockets: to all, to a topic, to a user, to nobody, at shutdown."""

import asyncio
import json
from typing import Any

import pytest

from client_sdk.contract import Scope
from tests.kit.checksum import checksum
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import PRICE, RunningServer, running


async def subscriber(node: RunningServer, user: str, *topics: str, **token: Any) -> RawClient:
    """A client subscribed to these topics."""
    client = await RawClient.connect(node.port, node.token(user, **token))
    reply = await client.call("subscribe", {"topics": list(topics)})
    assert all(each["status"] == "CONNECTED" for each in reply["topics"].values()), reply
    return client


@pytest.mark.behaviour("A6", "B3", "B5", "C8", "C17", "D40")
async def test_broadcast_reaches_every_client_unchanged() -> None:
    nested = {**PRICE, "venue": {"name": "börse", "depth": [1, [2.5, {"deep": None}], True]}}
    async with running() as node:
        clients = [await subscriber(node, f"u{number}", "PRICE:A") for number in range(120)]
        await node.server.market.publishing.publish("PRICE:A", nested)
        for client in clients:
            event, message = await client.event()
            assert (event, message["stream"], message["symbol"]) == ("price", "PRICE", "A")
            assert message["data"] == nested
        for client in clients:
            client.cut()
        await node.until_empty()


@pytest.mark.behaviour("A8")
async def test_private_message_reaches_every_device_of_its_user() -> None:
    async with running() as node:
        phone = await subscriber(node, "ann", "PRICE:A", "ORDER_UPDATES")
        desk = await subscriber(node, "ann", "ORDER_UPDATES")
        bob = await subscriber(node, "bob", "PRICE:A", "ORDER_UPDATES")
        namesake = await subscriber(node, "ann", "ORDER_UPDATES", org="acme")
        publisher = await RawClient.connect(node.port, node.token("backend"))
        answer = await publisher.call(
            "publish",
            {
                "messages": [
                    {"topic": "ORDER_UPDATES", "user": "ann", "data": {"order_id": "canary"}},
                    {"topic": "PRICE:A", "data": PRICE},
                    {"topic": "PRICE:B", "data": PRICE},
                ]
            },
        )
        assert [each["seq"] for each in answer["positions"]] == [1, 1, 1]
        assert [(await phone.event())[0] for _ in range(2)] == ["order_updates", "price"]
        event, message = await desk.event()
        assert (event, message["symbol"]) == ("order_updates", None)
        assert (await bob.event())[0] == "price"
        for client in (bob, namesake, desk):
            assert (await client.call("subscriptions", {}))["ok"], "no other event came"
        for client in (phone, desk, bob, namesake, publisher):
            client.cut()
        await node.until_empty()


@pytest.mark.behaviour("A10", "D16")
async def test_broadcast_without_subscribers_returns_a_position() -> None:
    async with running() as node:
        publisher = await RawClient.connect(node.port, node.token("backend"))
        answer = await publisher.call(
            "publish", {"messages": [{"topic": "PRICE:A", "data": PRICE}]}
        )
        assert answer["ok"]
        assert answer["positions"][0]["seq"] == 1
        publisher.cut()
        await node.until_empty()
        assert node.server.delivery.hub.channels() == ()


async def test_publish_needs_the_scope_and_reports_each_message() -> None:
    async with running() as node:
        subscriber_only = await RawClient.connect(node.port, node.token(scopes=[Scope.MARKET_READ]))
        message = {"topic": "PRICE:A", "data": PRICE}
        answer = await subscriber_only.call("publish", {"messages": [message]})
        assert answer["error"]["code"] == "auth.forbidden"
        publisher = await RawClient.connect(node.port, node.token(symbols=["A*"]))
        for messages, codes in (
            ([message, {**message, "topic": "NOISE"}], [None, "topic.unknown"]),
            ([{**message, "topic": "PRICE:B"}, message], ["auth.forbidden", None]),
            ([{**message, "id": "1"}, {**message, "id": "1"}], [None, None]),
            ([{"topic": "PRICE:A", "data": {}}], ["request.invalid"]),
        ):
            answer = await publisher.call("publish", {"messages": messages})
            outcomes = [each.get("error", {}).get("code") for each in answer["positions"]]
            assert outcomes == codes
            assert answer["ok"] == (not any(codes))
        changed = {**message, "id": "1", "data": {**PRICE, "last": "9"}}
        answer = await publisher.call("publish", {"messages": [changed]})
        assert answer["error"]["code"] == "publish.conflict"
        wrong: list[dict[str, object]] = [{}, {"messages": []}, {"messages": {}}, {"x": [message]}]
        for payload in wrong:
            answer = await publisher.call("publish", payload)
            assert answer["error"]["code"] == "request.invalid"
        for client in (subscriber_only, publisher):
            client.cut()
        await node.until_empty()


async def test_private_topics_need_a_token() -> None:
    async with running({"auth.market_optional": True}) as node:
        anonymous = await RawClient.connect(node.port, None)
        reply = await anonymous.call("subscribe", {"topics": ["USER_DATA", "PRICE:A"]})
        assert reply["topics"]["USER_DATA"]["error"]["code"] == "auth.forbidden"
        assert reply["topics"]["PRICE:A"]["status"] == "CONNECTED"
        anonymous.cut()
        await node.until_empty()


async def test_client_rebuilds_a_book_from_its_snapshot() -> None:
    async with running() as node:
        publish = node.server.market.publishing.publish
        data: dict[str, Any] = {"bids": [["9.0", "1"], ["8.5", "2"]], "asks": [["10.0", "3"]]}
        await publish("ORDERBOOK:A", data, kind="snapshot")
        client = await RawClient.connect(node.port, node.token())
        reply = (await client.call("subscribe", {"topics": ["ORDERBOOK:A"]}))["topics"]
        snapshot = reply["ORDERBOOK:A"]["snapshot"]["data"]
        bids, asks = dict(snapshot["bids"]), dict(snapshot["asks"])
        assert snapshot["checksum"] == checksum(bids, asks)
        await publish("ORDERBOOK:A", {"bids": [["9.0", "0"]], "asks": [["9.5", "1"]]})
        event, message = await client.event()
        assert event == "orderbook"
        del bids["9.0"]
        asks["9.5"] = "1"
        assert message["data"] == {
            "bids": [["9.0", "0"]],
            "asks": [["9.5", "1"]],
            "checksum": checksum(bids, asks),
        }
        client.cut()
        await node.until_empty()


@pytest.mark.behaviour("B23", "C12")
async def test_shutdown_closes_all_clients_and_leaves_nothing() -> None:
    async with running() as node:
        clients = [
            await subscriber(node, f"u{number}", "PRICE:A", "ORDERBOOK:A", "USER_DATA")
            for number in range(20)
        ]
        await clients[0].call("subscribe", {"topics": ["PRICE:A"], "interval_ms": 250})
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        server = node.server
    for client in clients:
        assert b"goodbye" in await client.until_closed()
    assert len(server.clients.registry) == 0
    assert len(server.market.subscriptions) == 0
    assert server.delivery.hub.channels() == ()
    assert server.delivery.hub.link_count == 0
    assert server.sockets.connection_count == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("floorcast")]


async def test_client_receives_stale_status_and_heartbeat() -> None:
    async with running() as node:
        client = await subscriber(node, "ann", "PRICE:A")
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        assert (await client.event())[0] == "price"
        for _ in range(41):
            node.pass_time(0.25)
        assert await client.event() == (
            "status",
            {"stream": "PRICE", "symbol": "A", "state": "STALE", "since_ms": 1_800_000_000_000},
        )
        for _ in range(20):
            node.pass_time(0.25)
        event, beat = await client.event()
        assert (event, beat["type"], beat["seq"], beat["prev"]) == ("price", "heartbeat", 1, 1)
        assert json.dumps(beat["data"]) == "{}"
        client.cut()
        await node.until_empty()
