"""Run plain python-socketio on aiohttp as a peer, with its defaults, on uvloop."""

import time
from typing import Any

import socketio
import uvloop
from aiohttp import web

from benchmarks.lines import reply
from benchmarks.peers.control import serve_commands


async def main() -> None:
    sio = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins=[])
    seq = 0

    @sio.event(namespace="/market")  # type: ignore[untyped-decorator]
    async def connect(sid: str, environ: dict[str, Any], auth: dict[str, Any]) -> None:
        await sio.save_session(sid, {"user": "load"}, namespace="/market")

    @sio.event(namespace="/market")  # type: ignore[untyped-decorator]
    async def subscribe(sid: str, request: dict[str, Any]) -> dict[str, Any]:
        for topic in request["topics"]:
            await sio.enter_room(sid, topic, namespace="/market")
        return {"ok": True}

    @sio.event(namespace="/session")  # type: ignore[untyped-decorator]
    async def join(sid: str, request: dict[str, Any]) -> dict[str, Any]:
        await sio.enter_room(sid, request["session_id"], namespace="/session")
        return {"ok": True}

    @sio.event(namespace="/session")  # type: ignore[untyped-decorator]
    async def send(sid: str, request: dict[str, Any]) -> dict[str, Any]:
        nonlocal seq
        seq += 1
        receipt = {
            "id": f"{seq:016x}",
            "epoch": "0a1b2c3d",
            "seq": seq,
            "ts": int(time.time() * 1000),
        }
        session_id = request["session_id"]
        message = {
            "session_id": session_id,
            **receipt,
            "user_id": "load",
            "data": request["data"],
        }
        await sio.emit("message", message, room=session_id, namespace="/session")
        return {"ok": True, **receipt}

    async def publish(symbol: str, data: dict[str, str]) -> None:
        nonlocal seq
        seq += 1
        message = {
            "stream": "PRICE",
            "symbol": symbol,
            "type": "update",
            "epoch": "0a1b2c3d",
            "seq": seq,
            "prev": seq - 1,
            "ts": int(time.time() * 1000),
            "data": data,
        }
        await sio.emit("price", message, room=f"PRICE:{symbol}", namespace="/market")

    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    reply(port=runner.addresses[0][1])
    await serve_commands(publish)


if __name__ == "__main__":
    uvloop.run(main())
