"""Run many raw WebSocket clients in one process, cheaply enough not to distort a measurement.

They speak just enough Engine.IO and Socket.IO to connect, send one event and stay.
"""

import asyncio
import base64
import json
import os
import socket
from abc import ABC, abstractmethod
from itertools import count
from typing import Any

import jwt

PING = b"\x81\x012"
TIMEOUT_SECONDS = 120.0
# The secret of every measured server that checks tokens.
SECRET = "a secret of the benchmarks that is long enough"
# Ethernet with room for a tunnel, and the receive buffer of a system short of memory.
FAR_SEGMENT_BYTES = 1400
FAR_WINDOW_BYTES = 64 * 1024
# An address has some 28,000 ports for the connections to one server.
_PER_ADDRESS = 16_000
_MASK = b"\x01\x02\x03\x04"


def masked(payload: bytes) -> bytes:
    """One masked text frame (RFC 6455, 5.2)."""
    length = len(payload)
    head = (
        bytes((0x81, 0x80 | length))
        if length < 126
        else bytes((0x81, 0x80 | 126)) + length.to_bytes(2, "big")
    )
    key = (_MASK * (length // 4 + 1))[:length]
    body = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")
    return head + _MASK + body


class PoolClient(asyncio.Protocol, ABC):
    """Connects, sends its first event and answers pings; subclasses consume the rest."""

    __slots__ = ("_first", "_rest", "_step", "pool", "transport")

    def __init__(self, pool: "ClientPool", event: str, request: dict[str, object]) -> None:
        self.pool = pool
        self._first = f"42{pool.namespace},0{json.dumps([event, request])}".encode()
        self._step = 0
        self._rest = b""

    @abstractmethod
    def consume(self, data: bytes) -> bytes:
        """Consume received data; return the tail to prepend to the next read."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            (
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
                f"Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            ).encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._step == 3:
            before = len(self._rest)
            data = self._rest + data
            # Search only new bytes: a second pong for one ping is a protocol error.
            if data.find(PING, max(0, before - len(PING) + 1)) >= 0:
                self.transport.write(masked(b"3"))
            self._rest = self.consume(data)
            return
        self._rest += data
        if self._step == 0 and b"\x81" in self._rest and b'"sid"' in self._rest:
            self._step, self._rest = 1, b""
            self.transport.write(masked(self.pool.connect_packet()))
        elif self._step == 1 and self.pool.connected_prefix in self._rest:
            self._step, self._rest = 2, b""
            self.transport.write(masked(self._first))
        elif self._step == 2 and self.pool.ack_prefix in self._rest:
            self._step, self._rest = 3, b""
            self.pool.on_joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.on_lost(self)


class ClientPool(ABC):
    """All clients of this process, connected with limited concurrency."""

    def __init__(
        self, port: int, token: str, *, namespace: str = "/market", far: bool = False
    ) -> None:
        self.namespace = namespace
        # The CONNECT reply starts like the CONNECT packet.
        self.connected_prefix = f"40{namespace},".encode()
        self.ack_prefix = f"43{namespace},0".encode()
        self._claims = jwt.decode(token, options={"verify_signature": False}) if token else {}
        self._numbers = count()
        self.joined: list[PoolClient] = []
        self.lost = 0
        self._port = port
        self._far = far
        self._slots: asyncio.Semaphore
        self._all_joined = asyncio.Event()
        self._target = 0

    def connect_packet(self) -> bytes:
        """The CONNECT packet of the next client, a user of its own as real ones are."""
        number = next(self._numbers)
        claims = self._claims | {"jti": str(number), "sub": f"user-{os.getpid()}-{number}"}
        return self.connected_prefix + json.dumps({"token": jwt.encode(claims, SECRET)}).encode()

    @abstractmethod
    def new_client(self) -> PoolClient:
        """A new client."""

    async def open(self, count: int, concurrency: int) -> None:
        """Connect `count` clients, a few at a time, until each has the reply to its first event."""
        if not count:
            return
        loop = asyncio.get_running_loop()
        self._target = len(self.joined) + count
        self._all_joined.clear()
        self._slots = asyncio.Semaphore(concurrency)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            for _ in range(count):
                await self._slots.acquire()
                if self._far:
                    await loop.create_connection(self.new_client, sock=await self._far_socket())
                else:
                    local = f"127.0.0.{1 + len(self.joined) // _PER_ADDRESS}"
                    await loop.create_connection(
                        self.new_client, "127.0.0.1", self._port, local_addr=(local, 0)
                    )
            await self._all_joined.wait()

    async def _far_socket(self) -> socket.socket:
        """A connection with the segment size of a real network and a fixed receive window.

        The kernel sizes a server's send buffer by segment size, and the client's by its read rate.
        On plain loopback they buffer 4 MB or more for a client that stops reading; here 0.1 to
        1 MB, depending on congestion control.
        """
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, FAR_SEGMENT_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FAR_WINDOW_BYTES)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        return sock

    def on_joined(self, client: PoolClient) -> None:
        self.joined.append(client)
        self._slots.release()
        if len(self.joined) == self._target:
            self._all_joined.set()

    def on_lost(self, client: PoolClient) -> None:
        """Count a lost client, and release `open`."""
        self.lost += 1
        self._slots.release()
        self._all_joined.set()
