"""The two clients whose receiving is compared: ours, and the stock one; each counts messages."""

import argparse
import asyncio
import time
from typing import Any

import socketio

from benchmarks.lines import commands, reply
from client_sdk import Client, Gap


class MessageCounter:
    """Says when so many have come."""

    def __init__(self) -> None:
        self.count = 0
        self._expected = 0
        self._reached = asyncio.Event()

    def add(self) -> None:
        """One more."""
        self.count += 1
        if self.count == self._expected:
            self._reached.set()

    def expect(self, count: int) -> None:
        """Begin anew."""
        self.count, self._expected = 0, count
        self._reached.clear()

    async def until_reached(self) -> None:
        """Wait for the last."""
        await self._reached.wait()


async def receive_stock(url: str, stream: str, counter: MessageCounter) -> None:
    """A plain `socketio.AsyncClient` whose handler looks at one field."""
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
    """The SDK: an iterator that gets every single message, as a model."""
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
    """The SDK: prices, of which a slow reader gets the latest; each is made a model all the same.

    What was replaced by a newer one before the reader came to it was received too.
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
    """Obey while the reader reads."""
    task = asyncio.create_task(read)
    await serve_commands(counter)
    task.cancel()
    await asyncio.wait([task])


async def serve_commands(counter: MessageCounter) -> None:
    """Answer commands until stdin ends."""
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
