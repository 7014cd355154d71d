"""Test the stock Python Socket.IO client over both transports and an upgrade."""

import asyncio
from typing import Any

import pytest
import socketio
from socketio.exceptions import ConnectionError as CannotConnect

from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import PRICE, running


@pytest.mark.behaviour("C8")
@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
async def test_stock_python_client_receives_prices(transports: list[str]) -> None:
    async with running() as node:
        prices: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        client = socketio.AsyncClient(reconnection=False)
        client.on("price", prices.put, namespace="/market")
        await client.connect(
            node.url,
            transports=transports,
            namespaces=["/market", "/session"],
            auth={"token": node.token(), "recovery": False},
        )
        assert node.server.clients.registry.stats()["connections"] == 2
        assert node.server.clients.registry.stats()["devices"] == 1
        answer = await client.call(
            "subscribe",
            {"topics": ["PRICE:A", "NOISE:A"]},
            namespace="/market",
            timeout=MAX_WAIT_SECONDS,
        )
        assert answer["topics"]["PRICE:A"]["status"] == "CONNECTED"
        assert answer["topics"]["NOISE:A"]["error"]["code"] == "topic.unknown"
        for seq in (1, 2):
            await node.server.market.publishing.publish("PRICE:A", PRICE)
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                assert (await prices.get())["seq"] == seq
        await client.disconnect()
        await node.until_empty()


async def test_polling_python_client_receives_a_whole_burst() -> None:
    # The client closes if one poll response has more packets than it accepts.
    async with running() as node:
        prices: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        client = socketio.AsyncClient(reconnection=False)
        client.on("price", prices.put, namespace="/market")
        await client.connect(
            node.url,
            transports=["polling"],
            namespaces=["/market"],
            auth={"token": node.token(), "recovery": False},
        )
        await client.call(
            "subscribe", {"topics": ["PRICE:A"]}, namespace="/market", timeout=MAX_WAIT_SECONDS
        )
        for _ in range(100):
            await node.server.market.publishing.publish("PRICE:A", PRICE)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            assert [(await prices.get())["seq"] for _ in range(100)] == list(range(1, 101))
        await client.disconnect()
        await node.until_empty()


async def test_stock_python_client_gets_its_refusal_code() -> None:
    async with running() as node:
        client = socketio.AsyncClient(reconnection=False)
        errors: list[dict[str, Any]] = []
        client.on("connect_error", errors.append, namespace="/market")
        with pytest.raises(CannotConnect):
            await client.connect(node.url, namespaces=["/market"], auth={"token": "x"})
        assert errors[0]["data"]["code"] == "auth.invalid"
        await client.disconnect()
        await node.until_empty()
