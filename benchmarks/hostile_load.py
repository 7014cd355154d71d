"""Attack a server on this machine with many clients that send costly events, for some seconds.

Each attacker sends its event at a rate, drops the replies, and connects again when it is closed.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt

from benchmarks.client_pool import PING, SECRET, masked
from benchmarks.lines import commands, reply

_HOST = "127.0.0.1"
_PROMPT_BYTES = 256 * 1024
_RECONNECT_SECONDS = 0.25


def _event(name: str, request: object) -> bytes:
    body = json.dumps([name, request], separators=(",", ":"))
    return masked(f"42/market,1{body}".encode())


def _publish_book(kind: str, bids: list[list[str]]) -> bytes:
    data = {"bids": bids, "asks": []}
    return _event("publish", {"messages": [{"topic": "ORDERBOOK:X", "data": data, "type": kind}]})


def _nested() -> bytes:
    rows = "[" * 30 + "]" * 30
    text = f'42/market,1["subscribe",{{"topics":[{",".join([rows] * 1000)}]}}]'
    return masked(text.encode())


ATTACKS: dict[str, Callable[[], bytes]] = {
    "many topics": lambda: _event("subscribe", {"topics": [f"PRICE:S{i}" for i in range(1000)]}),
    "deep books": lambda: _publish_book("snapshot", [[str(i), "1"] for i in range(4700)]),
    "bad levels": lambda: _publish_book("update", [["x", "y"]] * 5000),
    "nested arrays": _nested,
    "small events": lambda: _event("subscriptions", {}) * 100,
    "anonymous": lambda: _event("subscribe", {"topics": [f"PRICE:S{i}" for i in range(200)]}),
}


class Attacker(asyncio.Protocol):
    """One connection of an attacker; drops what it reads."""

    def __init__(self, connect: bytes) -> None:
        self._connect = connect
        self._is_joined = False
        self._transport: Any = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + self._connect
        )

    def data_received(self, data: bytes) -> None:
        self._is_joined = self._is_joined or b"40/market," in data
        if data.endswith(PING):
            self._transport.write(masked(b"3"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def send(self, frame: bytes) -> bool:
        """Send one event, unless too much is unsent."""
        if not self._is_joined or self._transport.get_write_buffer_size() > _PROMPT_BYTES:
            return False
        self._transport.write(frame)
        return True


async def attack(port: int, name: str, count: int, seconds: float, rate: float) -> dict[str, float]:
    """Run an attack; returns how many events were sent and how many connections were closed."""
    frame = ATTACKS[name]()
    until = time.monotonic() + seconds
    figures = {"sent": 0.0, "closed": 0.0}

    async def run(number: int) -> None:
        loop = asyncio.get_running_loop()
        while time.monotonic() < until:
            connect = masked(f"40/market,{json.dumps(_auth(name, number))}".encode())
            attacker = Attacker(connect)
            try:
                transport, _ = await loop.create_connection(partial(_same, attacker), _HOST, port)
            except OSError:
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            while time.monotonic() < until and not attacker.closed.is_set():
                figures["sent"] += attacker.send(frame)
                await asyncio.sleep(1 / rate)
            figures["closed"] += attacker.closed.is_set()
            transport.abort()
            await asyncio.sleep(_RECONNECT_SECONDS)

    await asyncio.gather(*map(run, range(count)))
    return figures


def _same(attacker: Attacker) -> Attacker:
    return attacker


def _auth(name: str, number: int) -> dict[str, object]:
    if name == "anonymous":
        return {}
    now = int(time.time())
    claims = {"sub": f"attacker{number}", "aud": "floorcast", "iat": now - 1, "exp": now + 3600}
    return {"token": jwt.encode(claims | {"scope": "market:read market:publish"}, SECRET)}


async def serve(port: int) -> None:
    """Obey commands: `attack COUNT SECONDS RATE NAME...`."""
    async for command, count, seconds, rate, *name in commands():
        if command == "attack":
            reply(**await attack(port, " ".join(name), int(count), float(seconds), float(rate)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
