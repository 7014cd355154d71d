"""A server that sends what a test scripts, valid or not."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

HANDSHAKE = '0{"sid":"x","pingInterval":25000,"pingTimeout":20000}'


class ScriptedConnection:
    """The server's side of one connection."""

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
        """Send the Engine.IO handshake."""
        await self.send(handshake)

    async def accept_namespace(self, namespace: str = "/market") -> dict[str, Any]:
        """Accept the client's CONNECT to a namespace; returns its `auth`."""
        packet = await self.receive()
        assert packet.startswith(f"40{namespace},"), packet
        await self.send(f'40{namespace},{{"sid":"y"}}', welcome(namespace))
        auth: dict[str, Any] = json.loads(packet[packet.index("{") :])
        return auth

    async def accept(self) -> dict[str, Any]:
        """Send the handshake and accept the client in `/market`; returns its `auth`."""
        await self.send_handshake()
        return await self.accept_namespace()

    async def receive_request(self) -> tuple[str, str, Any]:
        """The next request: the head of its ACK packet, the event and the body."""
        packet = await self.receive()
        if packet.startswith("41"):
            raise ConnectionError("the client left the namespace")
        head, start = packet[: packet.index("[")], packet.index("[")
        event, body = json.loads(packet[start:])
        return "43" + head[2:], event, body

    async def reply(self, head: str, body: object) -> None:
        """Reply to a request."""
        await self.send(f"{head}[{json.dumps(body)}]")

    async def grant_subscription(self, topic: str, **state: object) -> None:
        """Receive a subscribe request and grant it."""
        head, event, body = await self.receive_request()
        assert event == "subscribe"
        assert topic in body["topics"]
        granted = {"status": "CONNECTED", "epoch": "e", "seq": 0, "interval_ms": 0, **state}
        await self.reply(head, {"ok": True, "topics": {topic: granted}})

    async def wait_closed(self) -> None:
        """Read until the client closes the connection."""
        async for _ in self.socket:
            pass


def welcome(namespace: str) -> str:
    """A `welcome` event."""
    return event(
        namespace,
        "welcome",
        connection_id="c",
        user_id="ann",
        org="default",
        server_time=1_800_000_000_000,
        ping_interval_ms=25000,
        resume_window_ms=0,
        reconnect_spread_ms=0,
    )


def event(namespace: str, name: str, **body: object) -> str:
    """An EVENT packet."""
    return f"42{namespace},{json.dumps([name, body])}"


Script = Callable[[ScriptedConnection], Awaitable[None]]


class ScriptedServer:
    """Plays the next script on each connection; the last one repeats."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.connection_count = 0
        self.url = ""
        # A failed assertion in a script fails the test, instead of just closing a socket.
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
            # The client closed the connection halfway.
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


async def hang_up(connection: ScriptedConnection) -> None:
    """Close the connection at once."""
    await asyncio.sleep(0)
