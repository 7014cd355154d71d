"""Answers WebSocket handshakes before aiohttp makes a request of them.

For each connection aiohttp starts two tasks and builds a request, a writer and a route match, which
takes more CPU than the handshake itself. So the first bytes are looked at here. All but an ordinary
handshake is aiohttp's: other requests, malformed ones, and those that are to be refused.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDictProxy, MultiMapping

from server.tasks import TaskOwner
from server.transport import eager
from server.transport.config import SOCKET_PATH
from server.transport.takeover import limit_unsent_bytes

_HEAD_START = f"GET {SOCKET_PATH}?".encode()
_HEAD_END = b"\r\n\r\n"
# What aiohttp reads of a body at once; a handshake has none.
_READ_BYTES = 2**16


class HandshakeRequest(NamedTuple):
    """A WebSocket handshake, with the names that aiohttp's requests have."""

    headers: CIMultiDictProxy[str]
    query: MultiMapping[str]
    remote: str
    scheme: str
    host: str


class HandshakeServer(Protocol):
    """The engine, as it opens connections without aiohttp."""

    async def open_websocket(
        self, request: HandshakeRequest, transport: asyncio.Transport, early: bytes
    ) -> bool:
        """Accept a handshake and take the transport over; False if aiohttp must answer it.

        `early` are the bytes that came after the handshake.
        """


class HandshakeProtocols:
    """Creates the first protocol of each accepted connection.

    `create_http` creates aiohttp's protocol, which gets what is no handshake.
    """

    def __init__(
        self,
        server: HandshakeServer,
        create_http: Callable[[], asyncio.Protocol],
        tasks: TaskOwner,
        *,
        timeout_seconds: float,
    ) -> None:
        self.server = server
        self.create_http = create_http
        self.tasks = tasks
        self.timeout_seconds = timeout_seconds
        # The connections without another protocol yet.
        self.undecided: set[HandshakeProtocol] = set()

    async def listen(
        self, listener: socket.socket, *, backlog: int, max_unsent_bytes: int
    ) -> asyncio.Server:
        """Accept connections; what the kernel may hold unsent of each is limited."""
        # Here, because it would be three system calls for each connection.
        limit_unsent_bytes(listener, max_unsent_bytes)
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: HandshakeProtocol(self), sock=listener, backlog=backlog
        )

    def close(self) -> None:
        """Abort the connections without another protocol."""
        for protocol in tuple(self.undecided):
            protocol.abort()


class HandshakeProtocol(asyncio.Protocol):
    """Reads the first bytes of a connection, and gives it the protocol that it needs.

    Aborts a connection that has none after `timeout_seconds`.
    """

    __slots__ = ("_factory", "_timer", "_transport")

    def __init__(self, factory: HandshakeProtocols) -> None:
        self._factory = factory
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._factory.undecided.add(self)
        self._timer = asyncio.get_running_loop().call_later(
            self._factory.timeout_seconds, self.abort
        )

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        read = _read_handshake(data, transport)
        if read is None:
            self._hand_over(transport, data)
            return
        rest = eager.start(self._open(transport, data, *read))
        if rest is not None:
            # What comes meanwhile waits in the network.
            transport.pause_reading()
            self._factory.tasks.start(rest, "floorcast-handshake")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    async def _open(
        self, transport: asyncio.Transport, data: bytes, request: HandshakeRequest, early: bytes
    ) -> None:
        try:
            is_open = await self._factory.server.open_websocket(request, transport, early)
        except BaseException:
            # Nobody else would close it.
            transport.abort()
            raise
        if is_open:
            self._end()
        else:
            self._hand_over(transport, data)

    def _hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        self._end()
        if transport.is_closing():
            return
        http = self._factory.create_http()
        # Paused if other nodes were asked; otherwise a no-op.
        transport.resume_reading()
        transport.set_protocol(http)
        http.connection_made(transport)
        http.data_received(data)

    def _end(self) -> None:
        self._transport = None
        self._factory.undecided.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _read_handshake(
    data: bytes, transport: asyncio.Transport
) -> tuple[HandshakeRequest, bytes] | None:
    """The handshake at the start of the data and what follows it; None for any other request."""
    if not data.startswith(_HEAD_START) or _HEAD_END not in data:
        return None
    message, early = _parse(data)
    if message is None or "Expect" in message.headers:
        return None
    host = message.headers.get("Host")
    peer = transport.get_extra_info("peername")
    if host is None or not isinstance(peer, tuple):
        return None
    url = message.url
    return HandshakeRequest(message.headers, url.query, str(peer[0]), "http", host), early


def _parse(data: bytes) -> tuple[RawRequestMessage | None, bytes]:
    loop = asyncio.get_running_loop()
    parser: Any = HttpRequestParser(BaseProtocol(loop), loop, _READ_BYTES)
    try:
        messages, is_upgrade, early = parser.feed_data(data)
    except HttpProcessingError:
        return None, b""
    if not is_upgrade or len(messages) != 1 or messages[0][1] is not EMPTY_PAYLOAD:
        return None, b""
    return messages[0][0], early
