"""Forward TCP connections through a proxy that injects network faults."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

# The read limit of each stream: what the proxy buffers for a side that does not read.
BUFFER_BYTES = 64 * 1024
SLICES_PER_SECOND = 50
_NO_LINGER = struct.pack("ii", 1, 0)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Direction(StrEnum):
    """The two directions of a connection."""

    UP = "from the client to the server"
    DOWN = "from the server to the client"


BOTH_DIRECTIONS = (Direction.UP, Direction.DOWN)


class Pipe:
    """One direction of a connection; its faults may change at any time."""

    def __init__(self) -> None:
        self.delay_seconds = 0.0
        # 0 is no limit.
        self.bytes_per_second = 0
        # Data is read and dropped.
        self.is_blackholed = False
        # The connection is cut after this many more bytes.
        self.bytes_left: int | None = None
        self.passed_bytes = 0

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Forward data and EOF; return True if the connection must be cut now."""
        while chunk := await reader.read(self._chunk_bytes()):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            if self.is_blackholed:
                continue
            if self.bytes_left is not None:
                chunk = chunk[: self.bytes_left]
                self.bytes_left -= len(chunk)
            if writer.is_closing():
                return False
            writer.write(chunk)
            self.passed_bytes += len(chunk)
            await writer.drain()
            if self.bytes_left == 0:
                return True
            if self.bytes_per_second:
                await asyncio.sleep(len(chunk) / self.bytes_per_second)
        if not (writer.is_closing() or self.is_blackholed):
            writer.write_eof()
        return False

    def _chunk_bytes(self) -> int:
        if not self.bytes_per_second:
            return BUFFER_BYTES
        return max(1, self.bytes_per_second // SLICES_PER_SECOND)


class Connection:
    """A client's connection, the proxy's connection to the server, and both directions."""

    def __init__(self, client: Streams, server: Streams) -> None:
        self.up = Pipe()
        self.down = Pipe()
        self._client = client
        self._server = server
        self._writers = client[1], server[1]
        self._tasks: list[asyncio.Task[None]] = []

    def pipe(self, direction: Direction) -> Pipe:
        return self.up if direction is Direction.UP else self.down

    def cut(self) -> None:
        """Close both sides, as a stopping server or client does."""
        for writer in self._writers:
            writer.close()
        self._stop()

    def reset(self) -> None:
        """Close both sides with RST."""
        for writer in self._writers:
            _reset(writer)
        self._stop()

    def cut_after(self, byte_count: int, direction: Direction = Direction.DOWN) -> None:
        """Cut after forwarding this many bytes; 1 cuts in the middle of a frame."""
        self.pipe(direction).bytes_left = byte_count

    def blackhole(self, *directions: Direction) -> None:
        """Drop all data, in both directions by default, and keep the sockets open."""
        for direction in directions or BOTH_DIRECTIONS:
            self.pipe(direction).is_blackholed = True

    def half_close(self, direction: Direction) -> None:
        """Send EOF in one direction; the other one stays open."""
        self.pipe(direction).is_blackholed = True
        writer = self._writers[1 if direction is Direction.UP else 0]
        if not writer.is_closing():
            writer.write_eof()

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Delay every chunk; 0 ends the delay."""
        for direction in directions or BOTH_DIRECTIONS:
            self.pipe(direction).delay_seconds = seconds

    def throttle(self, bytes_per_second: int, *directions: Direction) -> None:
        """Limit the byte rate; 0 is no limit."""
        for direction in directions or BOTH_DIRECTIONS:
            self.pipe(direction).bytes_per_second = bytes_per_second

    async def forward(self) -> None:
        """Forward both directions until both have ended."""
        async with asyncio.TaskGroup() as group:
            for pipe, source, sink in (
                (self.up, self._client[0], self._server[1]),
                (self.down, self._server[0], self._client[1]),
            ):
                name = f"proxy-{'up' if pipe is self.up else 'down'}"
                self._tasks.append(group.create_task(self._forward(pipe, source, sink), name=name))
        self.cut()
        for writer in self._writers:
            await _closed(writer)

    async def _forward(
        self, pipe: Pipe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if await pipe.forward(reader, writer):
                self.cut()
        except OSError:
            # One side was reset: reset the other one too.
            self.reset()

    def _stop(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()


class Proxy:
    """Listens for a server that may change its port or be down."""

    def __init__(self, upstream_port: int, *, host: str = "127.0.0.1") -> None:
        self.upstream_port = upstream_port
        self.connections: list[Connection] = []
        self.accepted_count = 0
        # Chooses the upstream port of each new connection, instead of `upstream_port`.
        self.choose_port: Callable[[], int] | None = None
        # Called with each new connection before the first byte, to set its faults.
        self.on_connection: Callable[[Connection], None] | None = None
        self._host = host
        self._server: asyncio.Server | None = None
        self._serving = asyncio.TaskGroup()
        # Bound but never listening: reserves the port while connections are refused.
        self._port_holder = _bind(host, 0)
        self.port: int = self._port_holder.getsockname()[1]

    async def __aenter__(self) -> Self:
        await self._serving.__aenter__()
        await self.accept()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        self.reset_all()
        self._port_holder.close()
        await self._serving.__aexit__(exc_type, exc, traceback)

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    async def accept(self) -> None:
        """Accept new connections again."""
        if self._server is None:
            listener = _bind(self._host, self.port)
            self._server = await asyncio.start_server(
                self._accept_client, sock=listener, limit=BUFFER_BYTES
            )

    def refuse(self) -> None:
        """Refuse new connections, as a port without a listener does."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut_all(self) -> None:
        """Close every connection."""
        for connection in list(self.connections):
            connection.cut()

    def reset_all(self) -> None:
        """Close every connection with RST."""
        for connection in list(self.connections):
            connection.reset()

    def _accept_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_count += 1
        name = f"proxy-connection-{self.accepted_count}"
        self._serving.create_task(self._serve((reader, writer)), name=name)

    async def _serve(self, client: Streams) -> None:
        try:
            port = self.upstream_port if self.choose_port is None else self.choose_port()
            server = await asyncio.open_connection(self._host, port, limit=BUFFER_BYTES)
        except OSError:
            _reset(client[1])
            await _closed(client[1])
            return
        connection = Connection(client, server)
        self.connections.append(connection)
        if self._server is None:
            connection.reset()
        elif self.on_connection is not None:
            self.on_connection(connection)
        try:
            await connection.forward()
        finally:
            self.connections.remove(connection)


def _reset(writer: asyncio.StreamWriter) -> None:
    # A closed writer has no socket, or one without options.
    end = writer.get_extra_info("socket")
    if end is not None:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


async def _closed(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _bind(host: str, port: int) -> socket.socket:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind((host, port))
    return opened
