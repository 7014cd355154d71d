"""Run the compared receivers, the SDK and the stock client, which count messages."""

import argparse
import asyncio
import time
from typing import Any

import socketio

from benchmarks.lines import commands, reply
from client_sdk import Client, Gap


class MessageCounter:
    """Counts messages up to an expected number."""

    def __init__(self) -> None:
        self.count = 0
        self._expected = 0
        self._reached = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        if self.count == self._expected:
            self._reached.set()

    def expect(self, count: int) -> None:
        """Restart the count."""
        self.count, self._expected = 0, count
        self._reached.clear()

    async def until_reached(self) -> None:
        """Wait for the expected number."""
        await self._reached.wait()


async def receive_stock(url: str, stream: str, counter: MessageCounter) -> None:
    """Receive with a plain `socketio.AsyncClient` whose handler reads one field."""
    client = socketio.AsyncClient(reconnection=False)

    def handler(message: dict[str, Any]) -> None:
        if message["data"]:
            counter.add()

    client.on(stream.lower(), handler, namespace="/market")
    await client.connect(url, transports=["websocket"], namespaces=["/market"], auth={"token": "x"})
    await client.call("subscribe", {"topics": [f"{stream}:BTCUSDT"]}, namespace="/market")
    await serve_commands(counter)
    await client.disconnect()


async def receive_stream(url: str, stream: str, counter: MessageCounter) -> None:
    """Receive with an SDK iterator that yields every message as a model."""
    async with Client(url, "x") as client:
        messages = client.market.stream(f"{stream}:BTCUSDT")
        await messages.ready()

        async def read() -> None:
            async for message in messages:
                if isinstance(message, Gap):
                    raise RuntimeError("a message was lost")
                if message.data:
                    counter.add()

        await serve_beside(read(), counter)


async def receive_prices(url: str, stream: str, counter: MessageCounter) -> None:
    """Receive SDK prices, of which a slow reader gets the latest; each becomes a model.

    Prices that a newer one replaced before they were read count as received.
    """
    async with Client(url, "x") as client:
        prices = client.market.prices("BTCUSDT")
        await prices.ready()
        before = client.stats.merged

        async def read() -> None:
            nonlocal before
            async for price in prices:
                if price.data:
                    merged = client.stats.merged
                    for _ in range(1 + merged - before):
                        counter.add()
                    before = merged

        await serve_beside(read(), counter)


async def serve_beside(read: Any, counter: MessageCounter) -> None:
    """Serve commands while a reader runs."""
    task = asyncio.create_task(read)
    await serve_commands(counter)
    task.cancel()
    await asyncio.wait([task])


async def serve_commands(counter: MessageCounter) -> None:
    """Serve commands until stdin ends."""
    reply(ready=True)
    async for _, *words in commands():
        counter.expect(int(words[0]))
        reply(cpu=time.process_time())
        await counter.until_reached()
        reply(at=time.monotonic(), cpu=time.process_time())


RECEIVERS = {"python-socketio": receive_stock, "sdk": receive_stream, "sdk-latest": receive_prices}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--receiver", choices=RECEIVERS, required=True)
    parser.add_argument("--stream", default="PRICE")
    arguments = parser.parse_args()
    receive = RECEIVERS[arguments.receiver]
    asyncio.run(receive(f"http://127.0.0.1:{arguments.port}", arguments.stream, MessageCounter()))
