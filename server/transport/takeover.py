"""Takes an upgraded connection away from aiohttp, so that no task or HTTP parser stays with it.

aiohttp keeps two tasks, a request, a parser and a message queue for every WebSocket. Ours
answers the handshake, hands the bare transport to a protocol of our own and lets aiohttp's
request handler end: what is left is the transport and the protocol.
"""

import asyncio
import base64
import binascii
import hashlib

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_DEFLATE = "permessage-deflate"
# No context takeover in either direction: a connection then keeps no zlib window, and a frame
# compressed once is right for every client.
_DEFLATE_REPLY = (
    "Sec-WebSocket-Extensions: permessage-deflate; "
    "server_no_context_takeover; client_no_context_takeover\r\n"
)


class BadHandshake(Exception):
    """The request asks for a WebSocket in a way that we cannot serve."""


class TakenOverResponse(web.StreamResponse):
    """Stands for a response that was already sent on a connection that aiohttp gave up."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Nothing: the transport is not aiohttp's any more."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing, as above."""


def accept_key(request: web.BaseRequest) -> str:
    """Check a WebSocket handshake (RFC 6455, 4.2.1) and compute its answer."""
    headers = request.headers
    if headers.get("Upgrade", "").strip().lower() != "websocket":
        raise BadHandshake("the Upgrade header does not ask for a websocket")
    connection = headers.get("Connection", "").lower().split(",")
    if "upgrade" not in (token.strip() for token in connection):
        raise BadHandshake("the Connection header does not ask for an upgrade")
    if headers.get("Sec-WebSocket-Version", "").strip() != "13":
        raise BadHandshake("only version 13 of the WebSocket protocol is served")
    key = headers.get("Sec-WebSocket-Key", "").strip()
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise BadHandshake("the Sec-WebSocket-Key header is not 16 bytes of base64")
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def offers_deflate(request: web.BaseRequest) -> bool:
    """Whether the client can do compression without demanding a window from us."""
    for header in request.headers.getall("Sec-WebSocket-Extensions", ()):
        for offer in header.split(","):
            name, *parameters = (part.strip().lower() for part in offer.split(";"))
            # A client may ask for a smaller server window; ours is fixed, so that offer is passed.
            if name == _DEFLATE and not any(p.startswith("server_max_window") for p in parameters):
                return True
    return False


def take_over(
    request: web.BaseRequest,
    protocol: asyncio.Protocol,
    *,
    accept: str,
    deflate: bool,
    first_frames: bytes = b"",
) -> TakenOverResponse:
    """Answer the handshake, move the transport to `protocol`, and send the first frames."""
    handler = request.protocol
    transport = handler.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client left during the handshake")
    transport.write(
        (
            "HTTP/1.1 101 Switching Protocols\r\n"
            "Upgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n"
            f"{_DEFLATE_REPLY if deflate else ''}\r\n"
        ).encode()
    )
    early, handler._message_tail = handler._message_tail, b""
    # Without its transport the handler's clean-up gives back what is aiohttp's and no more.
    handler.transport = None
    handler.connection_lost(None)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    # aiohttp may have paused reading, because of those early bytes; on a transport that
    # reads this is nothing.
    transport.resume_reading()
    if first_frames:
        transport.write(first_frames)
    if early:
        protocol.data_received(early)
    return TakenOverResponse()
