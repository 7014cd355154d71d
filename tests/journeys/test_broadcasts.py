"""Broadcasts over real sockets: to all, to a room, to a user, to nobody, and to the end."""

import asyncio
import json
from typing import Any

import pytest

from client_sdk.contract import Scope
from tests.kit.checksum import checksum
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import PRICE, RunningServer, running


async def subscriber(node: RunningServer, user: str, *topics: str, **token: Any) -> RawClient:
    """Somebody who listens to these topics."""
    client = await RawClient.connect(node.port, node.token(user, **token))
    reply = await client.call("subscribe", {"topics": list(topics)})
    assert all(each["status"] == "CONNECTED" for each in reply["topics"].values()), reply
    return client


@pytest.mark.behaviour("A6", "B3", "B5", "C8", "C17", "D40")
async def test_a_broadcast_reaches_every_one_of_many_clients_just_as_it_was_published() -> None:
    nested = {**PRICE, "venue": {"name": "börse", "depth": [1, [2.5, {"deep": None}], True]}}
    async with running() as floor:
        clients = [await subscriber(floor, f"u{number}", "PRICE:A") for number in range(120)]
        await floor.server.publishing.publish("PRICE:A", nested)
        for client in clients:
            event, message = await client.event()
            assert (event, message["stream"], message["symbol"]) == ("price", "PRICE", "A")
            assert message["data"] == nested
        for client in clients:
            client.cut()
        await floor.until_empty()


@pytest.mark.behaviour("A8")
async def test_a_room_hears_what_is_its_own_and_a_user_on_every_device() -> None:
    async with running() as floor:
        phone = await subscriber(floor, "ann", "PRICE:A", "ORDER_UPDATES")
        desk = await subscriber(floor, "ann", "ORDER_UPDATES")
        bob = await subscriber(floor, "bob", "PRICE:A", "ORDER_UPDATES")
        namesake = await subscriber(floor, "ann", "ORDER_UPDATES", org="acme")
        backend = await RawClient.connect(floor.port, floor.token("backend"))
        answer = await backend.call(
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
            assert (await client.call("subscriptions", {}))["ok"], "and nothing more has come"
        for client in (phone, desk, bob, namesake, backend):
            client.cut()
        await floor.until_empty()


@pytest.mark.behaviour("A10", "D16")
async def test_a_broadcast_to_nobody_has_its_position_and_leaves_nothing() -> None:
    async with running() as floor:
        backend = await RawClient.connect(floor.port, floor.token("backend"))
        answer = await backend.call("publish", {"messages": [{"topic": "PRICE:A", "data": PRICE}]})
        assert answer["ok"]
        assert answer["positions"][0]["seq"] == 1
        backend.cut()
        await floor.until_empty()
        assert floor.server.hub.channels() == ()


async def test_publishing_needs_the_scope_and_says_what_is_wrong_with_each_message() -> None:
    async with running() as floor:
        listens = await RawClient.connect(floor.port, floor.token(scopes=[Scope.MARKET_READ]))
        message = {"topic": "PRICE:A", "data": PRICE}
        answer = await listens.call("publish", {"messages": [message]})
        assert answer["error"]["code"] == "auth.forbidden"
        backend = await RawClient.connect(floor.port, floor.token(symbols=["A*"]))
        for messages, codes in (
            ([message, {**message, "topic": "NOISE"}], [None, "topic.unknown"]),
            ([{**message, "topic": "PRICE:B"}, message], ["auth.forbidden", None]),
            ([{**message, "id": "1"}, {**message, "id": "1"}], [None, None]),
            ([{"topic": "PRICE:A", "data": {}}], ["request.invalid"]),
        ):
            answer = await backend.call("publish", {"messages": messages})
            outcomes = [each.get("error", {}).get("code") for each in answer["positions"]]
            assert outcomes == codes
            assert answer["ok"] == (not any(codes))
        changed = {**message, "id": "1", "data": {**PRICE, "last": "9"}}
        answer = await backend.call("publish", {"messages": [changed]})
        assert answer["error"]["code"] == "publish.conflict"
        wrong: list[dict[str, object]] = [{}, {"messages": []}, {"messages": {}}, {"x": [message]}]
        for payload in wrong:
            answer = await backend.call("publish", payload)
            assert answer["error"]["code"] == "request.invalid"
        for client in (listens, backend):
            client.cut()
        await floor.until_empty()


async def test_private_topics_are_not_for_those_without_a_token() -> None:
    async with running({"auth.market_optional": True}) as floor:
        stranger = await RawClient.connect(floor.port, None)
        reply = await stranger.call("subscribe", {"topics": ["USER_DATA", "PRICE:A"]})
        assert reply["topics"]["USER_DATA"]["error"]["code"] == "auth.forbidden"
        assert reply["topics"]["PRICE:A"]["status"] == "CONNECTED"
        stranger.cut()
        await floor.until_empty()


async def test_a_book_is_followed_from_its_snapshot_on_by_checksum() -> None:
    async with running() as floor:
        publish = floor.server.publishing.publish
        data: dict[str, Any] = {"bids": [["9.0", "1"], ["8.5", "2"]], "asks": [["10.0", "3"]]}
        await publish("ORDERBOOK:A", data, kind="snapshot")
        client = await RawClient.connect(floor.port, floor.token())
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
        await floor.until_empty()


@pytest.mark.behaviour("B23", "C12")
async def test_the_end_of_the_server_closes_everybody_and_leaves_nothing() -> None:
    async with running() as floor:
        clients = [
            await subscriber(floor, f"u{number}", "PRICE:A", "ORDERBOOK:A", "USER_DATA")
            for number in range(20)
        ]
        await clients[0].call("subscribe", {"topics": ["PRICE:A"], "interval_ms": 250})
        await floor.server.publishing.publish("PRICE:A", PRICE)
        server = floor.server
    for client in clients:
        assert b"goodbye" in await client.until_closed()
    assert len(server.registry) == 0
    assert len(server.subscriptions) == 0
    assert server.hub.channels() == ()
    assert server.hub.link_count == 0
    assert server.sockets.connection_count == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("floorcast")]


async def test_a_stale_topic_and_a_heartbeat_reach_a_client() -> None:
    async with running() as floor:
        client = await subscriber(floor, "ann", "PRICE:A")
        await floor.server.publishing.publish("PRICE:A", PRICE)
        assert (await client.event())[0] == "price"
        for _ in range(41):
            floor.pass_time(0.25)
        assert await client.event() == (
            "status",
            {"stream": "PRICE", "symbol": "A", "state": "STALE", "since_ms": 1_800_000_000_000},
        )
        for _ in range(20):
            floor.pass_time(0.25)
        event, beat = await client.event()
        assert (event, beat["type"], beat["seq"], beat["prev"]) == ("price", "heartbeat", 1, 1)
        assert json.dumps(beat["data"]) == "{}"
        client.cut()
        await floor.until_empty()
