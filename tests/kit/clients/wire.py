"""Speak WebSocket, Engine.IO and Socket.IO byte by byte, to send what no library would."""

import asyncio
import contextlib
import json
from typing import Any, cast

from tests.kit.patience import MAX_WAIT_SECONDS

_MASK = b"\x01\x02\x03\x04"


def masked(payload: bytes, *, first: int = 0x81) -> bytes:
    """A masked client frame (RFC 6455, 5.2); `first` is its first byte."""
    length = len(payload)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 65536:
        head = bytes((first, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + _MASK + bytes(byte ^ _MASK[i % 4] for i, byte in enumerate(payload))


class RawClient:
    """A client without a library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        # The last recovery offset that came with an event.
        self.offset: str | None = None

    @staticmethod
    async def open(port: int, *, query: str = "", headers: str = "") -> "RawClient":
        """Open a WebSocket; the Engine.IO handshake is still unread."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            (
                f"GET /socket.io/?EIO=4&transport=websocket{query} HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                f"{headers}\r\n"
            ).encode()
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionError((head + await reader.read(4096)).decode())
        except BaseException:
            writer.close()
            raise
        return RawClient(reader, writer)

    @staticmethod
    async def connect(
        port: int, token: str | None, *, namespace: str = "/market", **auth: object
    ) -> "RawClient":
        """Open a connection, connect the namespace and read the welcome."""
        client = await RawClient.open(port)
        try:
            await client.text()
            await client.join(token, namespace=namespace, **auth)
        except BaseException:
            # The server does not answer, or refuses.
            client.cut()
            raise
        return client

    async def join(
        self, token: str | None, *, namespace: str = "/market", **auth: object
    ) -> dict[str, Any]:
        """Send CONNECT, without recovery by default; return the welcome."""
        payload = {"recovery": False, **auth}
        if token is not None:
            payload["token"] = token
        self.send(f"40{namespace},{json.dumps(payload)}")
        answer = await self.text()
        assert answer.startswith(f"40{namespace},"), answer
        event, welcome = await self.event()
        assert event == "welcome"
        return cast(dict[str, Any], welcome)

    @property
    def port(self) -> int:
        """The port of its own end."""
        port: int = self.writer.get_extra_info("sockname")[1]
        return port

    def send(self, packet: str) -> None:
        """Send one text message."""
        self.send_bytes(masked(packet.encode()))

    def send_bytes(self, data: bytes) -> None:
        """Send raw bytes; a no-op if the connection is closing."""
        if not self.writer.is_closing():
            self.writer.write(data)

    async def frame(self) -> tuple[int, bytes]:
        """The opcode and payload of the next frame."""
        head = await self.reader.readexactly(2)
        length = head[1]
        extra = b""
        if length >= 126:
            extra = await self.reader.readexactly(2 if length == 126 else 8)
            length = int.from_bytes(extra, "big")
        return head[0] & 0x0F, await self.reader.readexactly(length)

    async def text(self) -> str:
        """The next text message; raise ConnectionAbortedError if the server closes."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            opcode, payload = await self.frame()
        if opcode == 8:
            raise ConnectionAbortedError(f"closed with {payload!r}")
        assert opcode == 1, (opcode, payload)
        return payload.decode()

    async def event(self) -> tuple[str, Any]:
        """The name and the argument of the next event; answers pings in between."""
        while (text := await self.text()) == "2":
            self.send("3")
        assert text.startswith("42"), text
        event, body, *offset = json.loads(text[text.index("[") :])
        if offset:
            # The stock client takes the last argument, if it is a string, as the offset.
            [self.offset] = offset
        return event, body

    async def call(self, event: str, payload: object, *, namespace: str = "/market") -> Any:
        """Send an event and return its ack; events in between are dropped."""
        self.send(f"42{namespace},7{json.dumps([event, payload])}")
        while True:
            text = await self.text()
            if text.startswith(f"43{namespace},7"):
                return json.loads(text[text.index("[") :])[0]

    async def until_closed(self) -> bytes:
        """Wait until the server closes the connection; return the unread bytes."""
        rest = b""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            try:
                while chunk := await self.reader.read(65536):
                    rest += chunk
            except ConnectionError:
                pass
        self.writer.close()
        return rest

    def pause_reading(self) -> None:
        """Stop reading, so that the server's data piles up."""
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    def resume_reading(self) -> None:
        cast(asyncio.Transport, self.writer.transport).resume_reading()

    def cut(self) -> None:
        """Abort the TCP connection."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close the TCP connection as an exiting client does."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
