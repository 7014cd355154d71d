"""The load: many raw WebSocket clients in one process, cheap enough not to be what is measured.

Speaks just enough Engine.IO and Socket.IO to join, subscribe and count. Commands come as lines
on stdin, answers go as JSON lines to stdout; moments are CLOCK_MONOTONIC, which all processes of
a machine share.
"""

import argparse
import asyncio
import base64
import json
import os
import sys
import time
from typing import Any

import uvloop

# Not the event's name: heartbeats carry that too, and are not deliveries.
MARKER = b'"type":"update"'
PING = b"\x81\x012"
PATIENCE_SECONDS = 120.0
# While it counts, the load sleeps this long between two looks at its sockets, so that one read
# takes several messages. It ends a run late by no more, and costs far less than it measures.
NAP_SECONDS = 0.002
_NEVER = 1 << 60
_MASK = b"\x01\x02\x03\x04"


def masked(payload: bytes) -> bytes:
    """One client text frame."""
    length = len(payload)
    head = (
        bytes((0x81, 0x80 | length))
        if length < 126
        else bytes((0x81, 0x80 | 126)) + length.to_bytes(2, "big")
    )
    key = (_MASK * (length // 4 + 1))[:length]
    body = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
    return head + _MASK + body


class Client(asyncio.Protocol):
    """Joins, subscribes, and then counts price events by their first bytes."""

    __slots__ = ("_load", "_seen", "_step", "_transport", "count")

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._step = 0
        self._seen = b""
        self.count = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            (
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
                f"Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            ).encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._step == 3:
            before = len(self._seen)
            data = self._seen + data
            self.count += data.count(MARKER)
            # Only bytes that the last read could not have shown: two pongs for one ping are forged.
            if data.find(PING, max(0, before - len(PING) + 1)) >= 0:
                self._transport.write(masked(b"3"))
            # A marker may be split between two reads; one byte less cannot be counted twice.
            self._seen = data[-len(MARKER) + 1 :]
            if self.count >= self._load.expected:
                self._load.one_done(self)
            return
        self._seen += data
        load = self._load
        if self._step == 0 and b"\x81" in self._seen and b'"sid"' in self._seen:
            self._step, self._seen = 1, b""
            self._transport.write(masked(load.connect))
        elif self._step == 1 and b"40/market," in self._seen:
            self._step, self._seen = 2, b""
            self._transport.write(masked(load.subscribe))
        elif self._step == 2 and b"43/market,0" in self._seen:
            self._step, self._seen = 3, b""
            load.one_joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.one_lost()


class Load:
    """All clients of this process."""

    def __init__(self, port: int, token: str, topics: list[str]) -> None:
        self.port = port
        self.connect = b"40/market," + json.dumps({"token": token}).encode()
        self.subscribe = b"42/market,0" + json.dumps(["subscribe", {"topics": topics}]).encode()
        self.clients: list[Client] = []
        self.expected = _NEVER
        self.lost = 0
        self._joined: asyncio.Semaphore
        self._waiting: set[Client] = set()
        self._finished: asyncio.Event = asyncio.Event()
        self._all_joined = asyncio.Event()
        self._target = 0

    async def open(self, count: int, at_once: int) -> None:
        """Connect and subscribe so many clients, a few at a time."""
        loop = asyncio.get_running_loop()
        self._target = len(self.clients) + count
        self._all_joined.clear()
        self._joined = asyncio.Semaphore(at_once)
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(count):
                await self._joined.acquire()
                await loop.create_connection(lambda: Client(self), "127.0.0.1", self.port)
            await self._all_joined.wait()

    def one_joined(self, client: Client) -> None:
        self.clients.append(client)
        self._joined.release()
        if len(self.clients) == self._target:
            self._all_joined.set()

    def one_lost(self) -> None:
        """A figure with fewer clients than it says would be a lie: whoever waits is told."""
        self.lost += 1
        self._joined.release()
        self._all_joined.set()
        self._finished.set()

    def expect(self, messages: int) -> None:
        """Begin to count: so many for each client."""
        for client in self.clients:
            client.count = 0
        self._waiting = set(self.clients)
        self._finished.clear()
        self.expected = messages
        self._nap()

    def _nap(self) -> None:
        if self.expected != _NEVER:
            time.sleep(NAP_SECONDS)
            asyncio.get_running_loop().call_soon(self._nap)

    def one_done(self, client: Client) -> None:
        self._waiting.discard(client)
        if not self._waiting:
            self.expected = _NEVER
            self._finished.set()

    async def finished(self) -> float:
        """The moment at which the last client had its last message."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._finished.wait()
        return time.monotonic()


async def main(arguments: argparse.Namespace) -> None:
    load = Load(arguments.port, arguments.token, arguments.topics)
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async for line in stdin:
        command, *words = line.decode().split()
        if command == "open":
            began = time.monotonic()
            await load.open(int(words[0]), int(words[1]))
            answer = {"joined": len(load.clients), "seconds": time.monotonic() - began}
        elif command == "expect":
            load.expect(int(words[0]))
            answer = {"waiting": len(load.clients)}
        elif command == "finished":
            answer = {"at": await load.finished()}
        else:
            break
        if load.lost:
            sys.exit(f"{load.lost} clients were lost")
        print(json.dumps({**answer, "cpu": time.process_time()}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--topics", nargs="+", default=["PRICE:BTCUSDT"])
    uvloop.run(main(parser.parse_args()))
