"""Serve prepared messages as fast as a client reads them."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import cast

import uvloop
from aiohttp import web

from benchmarks.lines import commands, reply
from benchmarks.peers.control import PRICE
from server.core.wire.frames import text_frame

_TRADE = {"id": 12345678, "price": "64250.11", "qty": "0.0150", "side": "buy"}
_DATA = {"price": PRICE, "trades": {"trades": [{**_TRADE, "ts": 1_795_239_129_739}]}}
# Messages per write, and the buffer limit that keeps any client busy.
_CHUNK = 200
_MAX_WAITING_BYTES = 256 * 1024
_NAP_SECONDS = 0.0002


class Blaster:
    """Serves one client at a time, and grants every subscription."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._seq = 0
        self._stream = ""

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Accept a client, and reply to its packets until it disconnects."""
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, request.transport)
        self._seq = 0
        await socket.send_str(
            '0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,'
            '"maxPayload":1000000}'
        )
        async for message in socket:
            for answer in self._answers(message.data):
                await socket.send_str(answer)
        return socket

    def _answers(self, packet: str) -> Iterator[str]:
        if packet.startswith("40/market,"):
            yield '40/market,{"sid":"y"}'
            welcome = {
                "connection_id": "c",
                "user_id": "load",
                "org": "default",
                "server_time": int(time.time() * 1000),
                "ping_interval_ms": 25000,
                "resume_window_ms": 0,
            }
            yield f"42/market,{json.dumps(['welcome', welcome])}"
        elif packet.startswith("42/market,"):
            start = packet.index("[")
            _, request = json.loads(packet[start:])
            state = {"status": "CONNECTED", "epoch": "8cf34260", "seq": 0, "interval_ms": 0}
            answer = {"ok": True, "topics": dict.fromkeys(request["topics"], state)}
            self._stream = request["topics"][0].partition(":")[0].lower()
            yield f"43{packet[2:start]}[{json.dumps(answer)}]"

    async def blast(self, count: int) -> None:
        """Write `count` messages; reply with the time of the first write."""
        chunks = [self._chunk(min(_CHUNK, count - done)) for done in range(0, count, _CHUNK)]
        transport = self._transport
        assert transport is not None
        began = time.monotonic()
        for chunk in chunks:
            transport.write(chunk)
            while transport.get_write_buffer_size() > _MAX_WAITING_BYTES:
                await asyncio.sleep(_NAP_SECONDS)
        reply(began=began, cpu=time.process_time())

    def _chunk(self, count: int) -> bytes:
        frames = []
        for _ in range(count):
            self._seq += 1
            body = {
                "stream": self._stream.upper(),
                "symbol": "BTCUSDT",
                "type": "update",
                "epoch": "8cf34260",
                "seq": self._seq,
                "prev": self._seq - 1,
                "ts": int(time.time() * 1000),
                "data": _DATA[self._stream],
            }
            packet = json.dumps([self._stream, body], separators=(",", ":"))
            frames.append(text_frame(f"42/market,{packet}".encode()))
        return b"".join(frames)


async def main() -> None:
    blaster = Blaster()
    app = web.Application()
    app.router.add_get("/socket.io/", blaster.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reply(port=runner.addresses[0][1])
    async for _, *words in commands():
        await blaster.blast(int(words[0]))


if __name__ == "__main__":
    uvloop.run(main())
