"""Takes a WebSocket connection over from aiohttp, so that it costs no task and no HTTP parser.

aiohttp keeps two tasks, a request, a parser and a queue for every WebSocket. `take_over`
answers the handshake and moves the transport to our own protocol; aiohttp's request handler
then ends.
"""

import asyncio
import base64
import binascii
import hashlib
import socket
from typing import Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest
from multidict import CIMultiDictProxy

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_DEFLATE = "permessage-deflate"
# RFC 7692, 7.1.1. Without context takeover a connection keeps no zlib window, and a frame is
# compressed once for all clients.
_DEFLATE_REPLY = (
    "Sec-WebSocket-Extensions: permessage-deflate; "
    "server_no_context_takeover; client_no_context_takeover\r\n"
)


class BadHandshake(Exception):
    """The request is not a WebSocket handshake that we can serve."""


class TakenOverResponse(web.StreamResponse):
    """A placeholder for the response that `take_over` has already sent."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """No-op: aiohttp no longer owns the transport."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """No-op, as above."""


class HasHeaders(Protocol):
    """A request, of aiohttp or our own."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers; a name can occur several times."""


def accept_key(request: HasHeaders) -> str:
    """Check a WebSocket handshake (RFC 6455, 4.2.1) and return the accept key (4.2.2).

    Raises `BadHandshake`.
    """
    headers = request.headers
    if headers.get("Upgrade", "").strip().lower() != "websocket":
        raise BadHandshake("the Upgrade header must be websocket")
    connection = headers.get("Connection", "").lower().split(",")
    if "upgrade" not in (token.strip() for token in connection):
        raise BadHandshake("the Connection header must contain upgrade")
    if headers.get("Sec-WebSocket-Version", "").strip() != "13":
        raise BadHandshake("Sec-WebSocket-Version must be 13")
    if "Transfer-Encoding" in headers or headers.get("Content-Length", "0").strip() != "0":
        # Its bytes would be read as frames.
        raise BadHandshake("a handshake has no body")
    key = headers.get("Sec-WebSocket-Key", "").strip()
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise BadHandshake("Sec-WebSocket-Key must be 16 bytes in base64")
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def offers_deflate(request: HasHeaders) -> bool:
    """Whether the client offers permessage-deflate without `server_max_window_bits`."""
    for header in request.headers.getall("Sec-WebSocket-Extensions", ()):
        for offer in header.split(","):
            name, *parameters = (part.strip().lower() for part in offer.split(";"))
            # RFC 7692, 7.1.2.1: our window size is fixed, so such an offer is declined.
            if name == _DEFLATE and not any(p.startswith("server_max_window") for p in parameters):
                return True
    return False


def take_over(
    request: web.BaseRequest,
    protocol: asyncio.Protocol,
    *,
    accept: str,
    deflate: bool,
    max_unsent_bytes: int,
    first_frames: bytes = b"",
) -> TakenOverResponse:
    """Answer the handshake, move the transport to `protocol`, and send the first frames.

    Raises `ConnectionResetError` if the client has left.
    """
    handler = request.protocol
    transport = handler.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client left during the handshake")
    # On the connection, not on its listener, which may be of another server.
    limit_unsent_bytes(transport.get_extra_info("socket"), max_unsent_bytes)
    early, handler._message_tail = handler._message_tail, b""
    # Without its transport, the handler's clean-up releases only aiohttp's own state.
    handler.transport = None
    handler.connection_lost(None)
    switch_protocols(
        transport,
        protocol,
        accept=accept,
        deflate=deflate,
        first_frames=first_frames,
        early=early,
    )
    return TakenOverResponse()


def switch_protocols(
    transport: asyncio.Transport,
    protocol: asyncio.Protocol,
    *,
    accept: str,
    deflate: bool,
    first_frames: bytes,
    early: bytes,
) -> None:
    """Answer the handshake, move the transport to `protocol`, and send the first frames."""
    # Paused by aiohttp because of early bytes, or while other nodes were asked; else a no-op.
    transport.resume_reading()
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    transport.write(
        (
            "HTTP/1.1 101 Switching Protocols\r\n"
            "Upgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n"
            f"{_DEFLATE_REPLY if deflate else ''}\r\n"
        ).encode()
        + first_frames
    )
    if early:
        protocol.data_received(early)


def limit_unsent_bytes(sock: socket.socket, max_bytes: int) -> None:
    """Limit what the kernel holds unsent; 0 leaves it to the kernel.

    On Linux, the connections of a listener have its limit.
    """
    if max_bytes and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, max_bytes)
