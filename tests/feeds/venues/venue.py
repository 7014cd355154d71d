"""What the local venues share: REST, connections, and what can go wrong with them."""

import asyncio
import json
from types import TracebackType
from typing import Self, cast

from aiohttp import WSMsgType, web


class LocalVenue:
    """A server on this machine; used as a context manager."""

    def __init__(self) -> None:
        self.url = ""
        # What a request gets instead of its answer: a status and a body.
        self.failure: tuple[int, str] | None = None
        # Answers wait while it is not set.
        self.answers = asyncio.Event()
        self.answers.set()
        # Whether the connections stay open and nothing is sent but answers to pings.
        self.is_silent = False
        self.requests: list[str] = []
        self.connections = 0
        self.sockets: dict[web.WebSocketResponse, set[str]] = {}
        self._transports: dict[web.WebSocketResponse, asyncio.BaseTransport] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        self.cut()
        await self._runner.cleanup()

    @property
    def options(self) -> dict[str, object]:
        """The options of a feed that uses this venue."""
        raise NotImplementedError

    def answer(self, path: str, query: dict[str, str]) -> object:
        """The answer of a request."""
        raise NotImplementedError

    def on_message(self, socket: web.WebSocketResponse, message: dict[str, object]) -> None:
        """Handle a message of a client."""
        raise NotImplementedError

    def cut(self) -> None:
        """Abort all connections."""
        for transport in self._transports.values():
            cast("asyncio.Transport", transport).abort()

    def freeze(self, key: str) -> None:
        """Stop reading and answering on the connections that are subscribed to this."""
        for socket, keys in self.sockets.items():
            if key in keys:
                cast("asyncio.Transport", self._transports[socket]).pause_reading()

    def send(self, key: str, text: str) -> None:
        """Send to the connections that are subscribed to this."""
        for socket, keys in tuple(self.sockets.items()):
            if key in keys:
                self.send_to(socket, text)

    def send_to(self, socket: web.WebSocketResponse, text: str, *, is_pong: bool = False) -> None:
        if (is_pong or not self.is_silent) and not socket.closed:
            task = asyncio.get_running_loop().create_task(socket.send_str(text))
            task.add_done_callback(_ignore_failure)

    def subscribers(self, key: str) -> int:
        """The number of connections, but those that were cut, that are subscribed to this."""
        return sum(
            key in keys and not self._transports[socket].is_closing()
            for socket, keys in self.sockets.items()
        )

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve(request)
        self.requests.append(request.path)
        if self.failure is not None:
            status, body = self.failure
            return web.Response(status=status, text=body)
        answer = self.answer(request.path, dict(request.query))
        await self.answers.wait()
        return web.json_response(answer)

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.connections += 1
        self.sockets[socket] = set()
        assert request.transport is not None
        self._transports[socket] = request.transport
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self.on_message(socket, json.loads(message.data))
        finally:
            del self.sockets[socket], self._transports[socket]
        return socket


def _ignore_failure(task: "asyncio.Task[None]") -> None:
    # The client may be gone.
    if not task.cancelled():
        task.exception()
