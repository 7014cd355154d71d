"""The stock Socket.IO client for Python, over both transports and through an upgrade."""

import asyncio
from typing import Any

import pytest
import socketio
from socketio.exceptions import ConnectionError as CannotConnect

from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import PRICE, running


@pytest.mark.behaviour("C8")
@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
async def test_a_stock_python_client_hears_prices(transports: list[str]) -> None:
    async with running() as floor:
        heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        client = socketio.AsyncClient(reconnection=False)
        client.on("price", heard.put, namespace="/market")
        await client.connect(
            floor.url,
            transports=transports,
            namespaces=["/market", "/session"],
            auth={"token": floor.token(), "recovery": False},
        )
        assert floor.server.registry.stats()["connections"] == 2
        assert floor.server.registry.stats()["devices"] == 1
        answer = await client.call(
            "subscribe",
            {"topics": ["PRICE:A", "NOISE:A"]},
            namespace="/market",
            timeout=MAX_WAIT_SECONDS,
        )
        assert answer["topics"]["PRICE:A"]["status"] == "CONNECTED"
        assert answer["topics"]["NOISE:A"]["error"]["code"] == "topic.unknown"
        for seq in (1, 2):
            await floor.server.publishing.publish("PRICE:A", PRICE)
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                assert (await heard.get())["seq"] == seq
        await client.disconnect()
        await floor.until_empty()


async def test_a_stock_python_client_that_polls_hears_a_burst_to_its_end() -> None:
    # It leaves where one answer has more packets than it cares to take.
    async with running() as floor:
        heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        client = socketio.AsyncClient(reconnection=False)
        client.on("price", heard.put, namespace="/market")
        await client.connect(
            floor.url,
            transports=["polling"],
            namespaces=["/market"],
            auth={"token": floor.token(), "recovery": False},
        )
        await client.call(
            "subscribe", {"topics": ["PRICE:A"]}, namespace="/market", timeout=MAX_WAIT_SECONDS
        )
        for _ in range(100):
            await floor.server.publishing.publish("PRICE:A", PRICE)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            assert [(await heard.get())["seq"] for _ in range(100)] == list(range(1, 101))
        await client.disconnect()
        await floor.until_empty()


async def test_a_stock_python_client_is_told_why_it_is_refused() -> None:
    async with running() as floor:
        client = socketio.AsyncClient(reconnection=False)
        errors: list[dict[str, Any]] = []
        client.on("connect_error", errors.append, namespace="/market")
        with pytest.raises(CannotConnect):
            await client.connect(floor.url, namespaces=["/market"], auth={"token": "x"})
        assert errors[0]["data"]["code"] == "auth.invalid"
        await client.disconnect()
        await floor.until_empty()
