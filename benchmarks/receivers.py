"""The two clients whose receiving is compared: ours, and the stock one; each counts messages."""

import argparse
import asyncio
import time
from typing import Any

import socketio

from benchmarks.lines import commands, say
from client_sdk import Client, Gap


class Count:
    """Says when so many have come."""

    def __init__(self) -> None:
        self.seen = 0
        self._expected = 0
        self._reached = asyncio.Event()

    def add(self) -> None:
        """One more."""
        self.seen += 1
        if self.seen == self._expected:
            self._reached.set()

    def expect(self, count: int) -> None:
        """Begin anew."""
        self.seen, self._expected = 0, count
        self._reached.clear()

    async def reached(self) -> None:
        """Wait for the last."""
        await self._reached.wait()


async def stock(url: str, stream: str, count: Count) -> None:
    """A plain `socketio.AsyncClient` whose handler looks at one field."""
    client = socketio.AsyncClient(reconnection=False)

    def handler(message: dict[str, Any]) -> None:
        if message["data"]:
            count.add()

    client.on(stream.lower(), handler, namespace="/market")
    await client.connect(url, transports=["websocket"], namespaces=["/market"], auth={"token": "x"})
    await client.call("subscribe", {"topics": [f"{stream}:BTCUSDT"]}, namespace="/market")
    await obey(count)
    await client.disconnect()


async def every(url: str, stream: str, count: Count) -> None:
    """The SDK: an iterator that gets every single message, as a model."""
    async with Client(url, "x") as client:
        messages = client.market.stream(f"{stream}:BTCUSDT")
        await messages.ready()

        async def read() -> None:
            async for message in messages:
                if isinstance(message, Gap):
                    raise RuntimeError("a message was lost")
                if message.data:
                    count.add()

        await beside(read(), count)


async def latest(url: str, stream: str, count: Count) -> None:
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
                        count.add()
                    before = merged

        await beside(read(), count)


async def beside(reading: Any, count: Count) -> None:
    """Obey while the reader reads."""
    task = asyncio.create_task(reading)
    await obey(count)
    task.cancel()
    await asyncio.wait([task])


async def obey(count: Count) -> None:
    """Answer commands until stdin ends."""
    say(ready=True)
    async for _, *words in commands():
        count.expect(int(words[0]))
        say(cpu=time.process_time())
        await count.reached()
        say(at=time.monotonic(), cpu=time.process_time())


RECEIVERS = {"python-socketio": stock, "sdk": every, "sdk-latest": latest}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--receiver", choices=RECEIVERS, required=True)
    parser.add_argument("--stream", default="PRICE")
    arguments = parser.parse_args()
    receive = RECEIVERS[arguments.receiver]
    asyncio.run(receive(f"http://127.0.0.1:{arguments.port}", arguments.stream, Count()))
