"""Run the ingest load: one publisher with several requests under way."""

import argparse
import asyncio
import json
import time

import uvloop

from benchmarks.client_pool import ClientPool, PoolClient, masked
from benchmarks.lines import commands, reply
from benchmarks.peers.control import PRICE
from benchmarks.symbols import symbol

UNDER_WAY, SYMBOLS = 32, 50
_ACK = b"43/market,"
_REFUSED = b'"ok":false'


class Publisher(PoolClient):
    """Sends a request for each ack."""

    __slots__ = ("_load",)

    def __init__(self, load: "IngestLoad") -> None:
        super().__init__(load, "publish", {"messages": load.messages})
        self._load = load

    def consume(self, data: bytes) -> bytes:
        self._load.refused += data.count(_REFUSED)
        acks = data.count(_ACK)
        if acks:
            self._load.acked(acks)
        return data[-len(_ACK) + 1 :]

    def send(self, requests: int) -> None:
        """Send so many requests."""
        self.transport.write(self._load.frame * requests)


class IngestLoad(ClientPool):
    """One publisher, and what it has been acknowledged."""

    def __init__(self, port: int, token: str, batch: int) -> None:
        super().__init__(port, token)
        self.messages = [
            {"topic": f"PRICE:{symbol(index % SYMBOLS)}", "data": PRICE} for index in range(batch)
        ]
        request = json.dumps(["publish", {"messages": self.messages}], separators=(",", ":"))
        self.frame = masked(f"42/market,7{request}".encode())
        self.acks = self.refused = 0
        self.is_running = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._publishers: list[Publisher] = []

    def new_client(self) -> Publisher:
        publisher = Publisher(self)
        self._publishers.append(publisher)
        return publisher

    def acked(self, count: int) -> None:
        """Count acks, and send as many requests."""
        self.acks += count
        self._under_way -= count
        if self.is_running:
            self._send(count)
        elif not self._under_way:
            self._idle.set()

    async def publish(self, seconds: float) -> None:
        """Keep requests under way for so long, then wait for the last ack."""
        self.acks = self.refused = self._under_way = 0
        self._idle.clear()
        self.is_running = True
        self._send(UNDER_WAY)
        await asyncio.sleep(seconds)
        self.is_running = False
        await self._idle.wait()

    def _send(self, requests: int) -> None:
        self._under_way += requests
        self._publishers[0].send(requests)


async def main(arguments: argparse.Namespace) -> None:
    load = IngestLoad(arguments.port, arguments.token, arguments.batch)
    async for command, *words in commands():
        if command == "open":
            await load.open(int(words[0]), int(words[1]))
            reply(joined=len(load.joined))
        else:
            began, cpu = time.monotonic(), time.process_time()
            await load.publish(float(words[0]))
            reply(
                messages=load.acks * arguments.batch,
                refused=load.refused,
                seconds=time.monotonic() - began,
                cpu=time.process_time() - cpu,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--batch", type=int, required=True)
    uvloop.run(main(parser.parse_args()))
