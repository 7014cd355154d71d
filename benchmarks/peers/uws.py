"""Run uWebSockets through socketify as a peer: it forwards to rooms, in just enough Socket.IO.

It polls its sockets without a pause, so its CPU figures mean nothing; its latency does.
"""

import asyncio
import json
import socket
import time
from itertools import count
from typing import Any

from socketify import App, OpCode

from benchmarks.lines import reply
from benchmarks.peers.control import serve_commands

_OPEN = '0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
_NEVER_CLOSE = {"idle_timeout": 0, "max_backpressure": 0, "compression": 0}


def main() -> None:
    app = App()
    numbers = count(1)
    kept: list[asyncio.Task[None]] = []

    def opened(client: Any) -> None:
        client.send(_OPEN, OpCode.TEXT)

    def received(client: Any, message: Any, opcode: Any) -> None:
        text = message if isinstance(message, str) else bytes(message).decode()
        if text.startswith("40/market,"):
            client.send('40/market,{"sid":"y"}', OpCode.TEXT)
        elif text.startswith("42/market,"):
            start = text.index("[")
            _, request = json.loads(text[start:])
            for topic in request["topics"]:
                client.subscribe(topic)
            client.send(f'43{text[2:start]}[{{"ok":true}}]', OpCode.TEXT)

    async def publish(symbol: str, data: dict[str, str]) -> None:
        seq = next(numbers)
        body = {
            "stream": "PRICE",
            "symbol": symbol,
            "type": "update",
            "epoch": "0a1b2c3d",
            "seq": seq,
            "prev": seq - 1,
            "ts": int(time.time() * 1000),
            "data": data,
        }
        packet = "42/market," + json.dumps(["price", body], separators=(",", ":"))
        app.publish(f"PRICE:{symbol}", packet, OpCode.TEXT)

    def listening(config: Any) -> None:
        reply(port=config.port)
        # Its own tasks are collected while they wait.
        kept.append(asyncio.Task(serve_commands(publish), loop=app.loop.loop))

    app.ws("/*", {**_NEVER_CLOSE, "open": opened, "message": received})
    app.listen(_free_port(), listening)
    app.run()


def _free_port() -> int:
    """A port of the loopback that was free just now: socketify does not report the one it chose."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
