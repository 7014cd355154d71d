"""The WebSocket carrier: an asyncio protocol without a task or a queue."""

import asyncio
from collections.abc import Callable
from typing import cast

from server.core.wire.frames import close_frame, pong_frame
from server.core.wire.websocket import FrameReader, Opcode, ProtocolViolation
from server.transport.links import CarrierEvents

# A read this long is the last one of the socket in this turn of the loop.
_MAX_READ_BYTES = 64 * 1024
# So much may wait for a client before it is known that it takes nothing.
_MAX_UNCOUNTED_BYTES = 1024 * 1024


class WebSocketCarrier(asyncio.Protocol):
    """Reads and writes frames on a transport that was taken over from aiohttp."""

    __slots__ = (
        "_clog_bytes",
        "_events",
        "_is_paused",
        "_reader",
        "_transport",
        "_written",
        "deflates",
    )

    def __init__(
        self, events: CarrierEvents, *, max_message_bytes: int, clog_bytes: int, deflates: bool
    ) -> None:
        self._events = events
        self._reader = FrameReader(max_message_bytes, inflate=deflates)
        self._clog_bytes = clog_bytes
        self._transport: asyncio.Transport | None = None
        self._written = 0
        self._is_paused = False
        self.deflates = deflates

    def set_events(self, events: CarrierEvents) -> None:
        """Send further events to this receiver."""
        self._events = events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._clog_bytes)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        if len(data) >= _MAX_READ_BYTES and not transport.is_closing():
            # uvloop would read up to 8 MB of one socket before it turns to another.
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)
        if self._deliver(transport, data):
            while self._reader.has_unread and not self._is_paused:
                if not self._deliver(transport):
                    return

    def _read_on(self) -> None:
        if not self._is_paused and self._transport is not None:
            self.resume_reading()

    def _deliver(self, transport: asyncio.Transport, data: bytes = b"") -> bool:
        """Pass on some messages; False if the connection has ended."""
        try:
            messages = self._reader.feed(data)
        except ProtocolViolation as violation:
            self._events.on_violation(violation.reason, violation.close_code)
            return False
        for message in messages:
            if isinstance(message, str):
                self._events.on_text(message)
            elif message.opcode is Opcode.PING:
                self.write(pong_frame(message.payload))
                self._events.on_control_frame()
            elif message.opcode is Opcode.CLOSE:
                self._events.on_close_request()
            else:
                self._events.on_control_frame()
            if transport.is_closing():
                return False
        return True

    def pause_writing(self) -> None:
        self._events.on_clogged()

    def resume_writing(self) -> None:
        self._events.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._events.on_lost()

    @property
    def buffered_bytes(self) -> int:
        transport = self._transport
        return 0 if transport is None else transport.get_write_buffer_size()

    @property
    def taken_bytes(self) -> int:
        return self._written - self.buffered_bytes

    @property
    def plain_write(self) -> Callable[[bytes], None]:
        if self._transport is None or self._clog_bytes > _MAX_UNCOUNTED_BYTES:
            return self.write
        return self._transport.write

    def write(self, frames: bytes) -> None:
        transport = self._transport
        if transport is not None:
            self._written += len(frames)
            transport.write(frames)

    def pause_reading(self) -> None:
        self._is_paused = True
        transport = self._transport
        # uvloop raises on a closing transport.
        if transport is not None and not transport.is_closing():
            transport.pause_reading()

    def resume_reading(self) -> None:
        self._is_paused = False
        transport = self._transport
        if transport is None:
            return
        while self._reader.has_unread:
            if not self._deliver(transport) or self._is_paused:
                return
        if not transport.is_closing():
            transport.resume_reading()

    def limit_messages(self, max_bytes: int) -> None:
        self._reader.max_message_bytes = max_bytes

    def close(self, close_code: int) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(close_frame(close_code))
            transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
