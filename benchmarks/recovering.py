"""Run the restart load: clients that reconnect, resume by position and keep what they receive.

The received data is analyzed after the measurement, because that costs more than receiving it.
"""

import argparse
import asyncio
import functools
import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import socketio
import uvloop

from benchmarks.client_pool import TIMEOUT_SECONDS, ClientPool, PoolClient
from benchmarks.lines import commands, reply

TOPIC = "TRADES:BTCUSDT"
TRADE = {"price": "64250.10", "qty": "0.5", "side": "buy", "ts": 1}
PUBLISH_EVERY_SECONDS = 0.1
RETRY_SECONDS = 0.1
AT_ONCE = 64
_SEQ = re.compile(rb'"seq":(\d+)')
_EPOCH = re.compile(rb'"epoch":"([^"]+)"')


class RecoveringClient:
    """One client over all its connections."""

    def __init__(self) -> None:
        self.received: list[bytearray] = []
        self.epoch = ""
        self.seq = 0

    def request(self) -> dict[str, object]:
        """The subscribe request, with the last position."""
        since = {TOPIC: {"epoch": self.epoch, "seq": self.seq}} if self.epoch else {}
        return {"topics": [TOPIC], "since": since}

    def record_position(self) -> None:
        """Find the last position in the data of the last connection."""
        if found := _EPOCH.search(self.received[-1]):
            self.epoch = found[1].decode()
            self.seq = max(map(int, _SEQ.findall(self.received[-1])))

    def analyze(self) -> "tuple[int, int, int]":
        """The number of resets and of silent gaps, and the last seq."""
        resets = gaps = 0
        position: tuple[str, int] | None = None
        for data in self.received:
            for message in _messages(data):
                if "ok" in message:
                    topic = message["topics"][TOPIC]
                    if topic["recovered"]:
                        for missed in topic["missed"]:
                            position, gap = _advance(position, missed)
                            gaps += gap
                    elif position is not None:
                        resets += 1
                    position = topic["epoch"], topic["seq"]
                else:
                    position, gap = _advance(position, message)
                    gaps += gap
        return resets, gaps, 0 if position is None else position[1]


def _advance(
    position: tuple[str, int] | None, message: dict[str, Any]
) -> tuple[tuple[str, int], bool]:
    epoch, seq = message["epoch"], message["seq"]
    follows = position is not None and position[0] == epoch and seq == position[1] + 1
    return (epoch, seq), not follows


def _messages(data: bytearray) -> Iterator[dict[str, Any]]:
    """The `subscribe` replies and the trades in raw WebSocket data."""
    at = data.find(b"\r\n\r\n") + 4
    while at + 2 <= len(data):
        length, at = data[at + 1], at + 2
        if length >= 126:
            extra = 2 if length == 126 else 8
            length, at = int.from_bytes(data[at : at + extra], "big"), at + extra
        if at + length > len(data):
            return
        text, at = data[at : at + length], at + length
        if text.startswith(b"43/market,0"):
            yield json.loads(text[11:])[0]
        elif text.startswith(b'42/market,["trades"'):
            message = json.loads(text[10:])[1]
            if message["type"] != "heartbeat":
                yield message


class RecoveringConnection(PoolClient):
    """One connection of a client."""

    __slots__ = ("_received", "client")

    def __init__(self, pool: "RecoveringPool", client: RecoveringClient) -> None:
        super().__init__(pool, "subscribe", client.request())
        self.client = client
        self._received = bytearray()
        client.received.append(self._received)

    def data_received(self, data: bytes) -> None:
        self._received += data
        super().data_received(data)

    def consume(self, data: bytes) -> bytes:
        return data[-2:]


class RecoveringPool(ClientPool):
    """Reconnects lost clients at once, with limited concurrency."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(port, token)
        self._token = token
        self.clients: list[RecoveringClient] = []
        self.connected: set[RecoveringClient] = set()
        self.acknowledged: list[int] = []
        self.last_connected_at = 0.0
        self._disconnected: asyncio.Queue[RecoveringClient] = asyncio.Queue()
        self._all_connected = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def new_client(self) -> RecoveringConnection:
        raise NotImplementedError("connections are made by clients")

    async def connect_all(self, count: int) -> float:
        """Connect `count` clients; return the seconds it took."""
        began = time.monotonic()
        self.clients = [RecoveringClient() for _ in range(count)]
        for client in self.clients:
            self._disconnected.put_nowait(client)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._start(self._keep_connecting(), "connect")
        return await self.until_all_connected() - began

    async def until_all_connected(self) -> float:
        """Wait until all clients are connected; return the time of the last one."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._all_connected.wait()
        return self.last_connected_at

    def publish(self) -> None:
        """Keep publishing, also through outages of the server."""
        self._start(self._keep_publishing(), "publish")

    def on_joined(self, client: PoolClient) -> None:
        assert isinstance(client, RecoveringConnection)
        self._slots.release()
        self.connected.add(client.client)
        if len(self.connected) == len(self.clients):
            self.last_connected_at = time.monotonic()
            self._all_connected.set()

    def on_lost(self, client: PoolClient) -> None:
        assert isinstance(client, RecoveringConnection)
        self._all_connected.clear()
        if client.client in self.connected:
            self.connected.remove(client.client)
        else:
            self._slots.release()
        client.client.record_position()
        self._disconnected.put_nowait(client.client)

    async def _keep_connecting(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client = await self._disconnected.get()
            await self._slots.acquire()
            try:
                await loop.create_connection(
                    functools.partial(RecoveringConnection, self, client), "127.0.0.1", self._port
                )
            except OSError:
                self._slots.release()
                self._disconnected.put_nowait(client)
                await asyncio.sleep(RETRY_SECONDS)

    async def _keep_publishing(self) -> None:
        number = 0
        while True:
            client = socketio.AsyncClient(reconnection=False)
            try:
                await client.connect(
                    f"http://127.0.0.1:{self._port}",
                    auth={"token": self._token, "recovery": False},
                    namespaces=["/market"],
                    transports=["websocket"],
                )
                while True:
                    trade = {**TRADE, "id": str(number)}
                    message = {"topic": TOPIC, "data": {"trades": [trade]}, "id": f"n{number}"}
                    reply = await client.call(
                        "publish", {"messages": [message]}, namespace="/market", timeout=2
                    )
                    if reply["ok"]:
                        self.acknowledged.append(reply["positions"][0]["seq"])
                        number += 1
                    await asyncio.sleep(PUBLISH_EVERY_SECONDS)
            except socketio.exceptions.SocketIOError:
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.5))
            finally:
                await client.disconnect()

    def _start(self, work: Any, name: str) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work, name=name))


async def main(arguments: argparse.Namespace) -> None:
    load = RecoveringPool(arguments.port, arguments.token)
    async for command, *words in commands():
        answer: dict[str, Any] = {}
        if command == "fill":
            answer = {"seconds": await load.connect_all(int(words[0]))}
        elif command == "publish":
            load.publish()
        elif command == "reconnected":
            answer = {"at": await load.until_all_connected()}
        elif command == "analyze":
            # Let the last acknowledged message arrive.
            count, last = len(load.acknowledged), load.acknowledged[-1]
            await asyncio.sleep(1)
            losses = [client.analyze() for client in load.clients]
            answer = {
                "acknowledged": count,
                "resets": sum(resets for resets, _, _ in losses),
                "gaps": sum(gaps for _, gaps, _ in losses),
                "behind": sum(seq < last for _, _, seq in losses),
            }
        else:
            break
        reply(**answer, cpu=time.process_time())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", default="")
    uvloop.run(main(parser.parse_args()))
