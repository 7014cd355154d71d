"""A server that says what a test tells it to, right or wrong."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

HANDSHAKE = '0{"sid":"x","pingInterval":25000,"pingTimeout":20000}'


class ScriptedConnection:
    """One client's connection."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket

    async def send(self, *packets: str) -> None:
        """Send packets."""
        for packet in packets:
            await self.socket.send_str(packet)

    async def receive(self) -> str:
        """The next packet."""
        return await self.socket.receive_str()

    async def send_handshake(self, handshake: str = HANDSHAKE) -> None:
        """Shake hands."""
        await self.send(handshake)

    async def accept_namespace(self, namespace: str = "/market") -> dict[str, Any]:
        """Let the client into a namespace; what it brought."""
        packet = await self.receive()
        assert packet.startswith(f"40{namespace},"), packet
        await self.send(f'40{namespace},{{"sid":"y"}}', welcome(namespace))
        auth: dict[str, Any] = json.loads(packet[packet.index("{") :])
        return auth

    async def accept(self) -> dict[str, Any]:
        """Shake hands and let the client into the market; what it brought."""
        await self.send_handshake()
        return await self.accept_namespace()

    async def receive_request(self) -> tuple[str, str, Any]:
        """The start of its answer, the event and the body of what the client asks."""
        packet = await self.receive()
        if packet.startswith("41"):
            raise ConnectionError("the client takes leave")
        head, start = packet[: packet.index("[")], packet.index("[")
        event, body = json.loads(packet[start:])
        return "43" + head[2:], event, body

    async def reply(self, head: str, body: object) -> None:
        """Answer it."""
        await self.send(f"{head}[{json.dumps(body)}]")

    async def grant_subscription(self, topic: str, **state: object) -> None:
        """Grant the subscription that is asked for."""
        head, event, body = await self.receive_request()
        assert event == "subscribe"
        assert topic in body["topics"]
        each = {"status": "CONNECTED", "epoch": "e", "seq": 0, "interval_ms": 0, **state}
        await self.reply(head, {"ok": True, "topics": {topic: each}})

    async def wait_closed(self) -> None:
        """Read until the client goes."""
        async for _ in self.socket:
            pass


def welcome(namespace: str) -> str:
    """The first event."""
    return event(
        namespace,
        "welcome",
        connection_id="c",
        user_id="ann",
        org="default",
        server_time=1_800_000_000_000,
        ping_interval_ms=25000,
        resume_window_ms=0,
    )


def event(namespace: str, name: str, **body: object) -> str:
    """An event as a packet."""
    return f"42{namespace},{json.dumps([name, body])}"


Script = Callable[[ScriptedConnection], Awaitable[None]]


class ScriptedServer:
    """The server; each connection plays the next script, the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.connection_count = 0
        self.url = ""
        # What went wrong in a script is the test's failure, not a closed socket.
        self.failures: list[BaseException] = []

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        script = self._scripts[min(self.connection_count, len(self._scripts) - 1)]
        self.connection_count += 1
        try:
            await script(ScriptedConnection(socket))
        except (AssertionError, ValueError, KeyError) as failure:
            self.failures.append(failure)
        except (TypeError, ConnectionError, RuntimeError):
            # The client has gone in the middle of it.
            pass
        return socket

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedServer"]:
        """Listen until the block ends."""
        app = web.Application()
        app.router.add_get("/socket.io/", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()
        assert self.failures == []


async def hang_up(visit: ScriptedConnection) -> None:
    """Hang up at once."""
    await asyncio.sleep(0)
