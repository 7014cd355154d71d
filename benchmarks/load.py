"""Run the throughput load: clients that count received messages.

Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

import argparse
import asyncio
import sys
import time

import uvloop

from benchmarks.client_pool import TIMEOUT_SECONDS, ClientPool, PoolClient
from benchmarks.lines import commands, reply

# Not the event name: heartbeats have that too, and are not deliveries.
MARKER = b'"type":"update"'
# While counting, the load sleeps this long between reads, so that one read takes several messages.
# A run ends at most this late, and the load costs far less than the server.
NAP_SECONDS = 0.002
_NEVER = 1 << 60


class Client(PoolClient):
    """Counts price events by a marker."""

    __slots__ = ("_load", "count")

    def __init__(self, load: "Load", topics: list[str]) -> None:
        super().__init__(load, "subscribe", {"topics": topics})
        self._load = load
        self.count = 0

    def consume(self, data: bytes) -> bytes:
        self.count += data.count(MARKER)
        if self.count >= self._load.expected:
            self._load.on_done(self)
        # A marker may be split between two reads; a tail one byte shorter is never counted twice.
        return data[-len(MARKER) + 1 :]


class Load(ClientPool):
    """Clients that each wait for a number of messages."""

    def __init__(self, port: int, token: str, topics: list[str]) -> None:
        super().__init__(port, token)
        self.topics = topics
        self.clients: list[Client] = []
        self.expected = _NEVER
        self._waiting: set[Client] = set()
        self._finished = asyncio.Event()

    def new_client(self) -> Client:
        client = Client(self, self.topics)
        self.clients.append(client)
        return client

    def on_lost(self, client: PoolClient) -> None:
        """End the run: figures for fewer clients would be wrong."""
        super().on_lost(client)
        self._finished.set()

    def expect(self, messages: int) -> None:
        """Start counting up to this many messages per client."""
        for client in self.clients:
            client.count = 0
        self._waiting = set(self.clients)
        self._finished.clear()
        self.expected = messages
        self._nap()

    def settle_for(self, messages: int) -> None:
        """Expect no more than this many messages per client, those received included."""
        if self._waiting:
            self.expected = messages
            for client in [each for each in self._waiting if each.count >= messages]:
                self.on_done(client)

    def _nap(self) -> None:
        if self.expected != _NEVER:
            time.sleep(NAP_SECONDS)
            asyncio.get_running_loop().call_soon(self._nap)

    def on_done(self, client: Client) -> None:
        self._waiting.discard(client)
        if not self._waiting:
            self.expected = _NEVER
            self._finished.set()

    async def until_finished(self) -> float:
        """Wait until every client has all its messages; return the time."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._finished.wait()
        return time.monotonic()


async def main(arguments: argparse.Namespace) -> None:
    load = Load(arguments.port, arguments.token, arguments.topics)
    async for command, *words in commands():
        if command == "open":
            began = time.monotonic()
            await load.open(int(words[0]), int(words[1]))
            answer = {"joined": len(load.joined), "seconds": time.monotonic() - began}
        elif command == "expect":
            load.expect(int(words[0]))
            answer = {"waiting": len(load.joined)}
        elif command == "finished":
            if words:
                load.settle_for(int(words[0]))
            answer = {"at": await load.until_finished()}
        else:
            break
        if load.lost:
            sys.exit(f"{load.lost} clients were lost")
        reply(**answer, cpu=time.process_time())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--topics", nargs="+", default=["PRICE:BTCUSDT"])
    uvloop.run(main(parser.parse_args()))
