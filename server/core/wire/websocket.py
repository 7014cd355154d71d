"""Reads a client's WebSocket frames (RFC 6455) strictly, without a buffer while idle."""

import zlib
from enum import IntEnum
from typing import NamedTuple

from server.core.wire.errors import WireError

_CONTINUATION = 0x0
_TEXT = 0x1
_BINARY = 0x2
# Small fragments cost more than they hold: a message may have a few of any size, and else one for
# so many of its bytes.
_FREE_FRAGMENTS = 8
_FRAGMENT_BYTES = 512
# How much one call reads, so that a chunk of many small messages does not take everybody's time.
_MAX_MESSAGES = 16
_MAX_CHARACTERS = 64 * 1024
# RFC 7692, 7.2.2: the tail that the sender removed.
_DEFLATE_TAIL = b"\x00\x00\xff\xff"

# RFC 6455, 7.4.1.
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
INVALID_PAYLOAD = 1007
MESSAGE_TOO_BIG = 1009

_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))


class Opcode(IntEnum):
    """The control frames."""

    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


_CONTROL = {opcode.value: opcode for opcode in Opcode}


class Control(NamedTuple):
    """A control frame; the connection's owner must answer it."""

    opcode: Opcode
    payload: bytes


class ProtocolViolation(WireError):
    """A violation of the protocol; end the connection with this close code."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(reason)
        self.close_code = close_code


class FrameReader:
    """Turns chunks of bytes into text messages and control frames, some of them at a time.

    It checks lengths before buffering: an idle reader holds no buffer, a busy one at most one
    message and what its caller has not read of a chunk.
    """

    __slots__ = (
        "_buffer",
        "_compressed",
        "_fragment_bytes",
        "_fragments",
        "_inflate",
        "_needed_bytes",
        "_start",
        "has_unread",
        "max_message_bytes",
    )

    def __init__(self, max_message_bytes: int, *, inflate: bool = False) -> None:
        self.max_message_bytes = max_message_bytes
        self._inflate = inflate
        self._buffer: bytes | bytearray = b""
        # Where the unread bytes of the buffer begin.
        self._start = 0
        self._needed_bytes = 2
        # True if the last call stopped before the end of a chunk: call `feed` again.
        self.has_unread = False
        self._fragments: list[bytes] | None = None
        self._fragment_bytes = 0
        self._compressed = False

    def feed(self, data: bytes = b"") -> list[str | Control]:
        """Read a chunk, or more of the last one; returns the next messages that are complete.

        Raises `ProtocolViolation`, and then delivers nothing of what this call has read.
        """
        if not self._buffer:
            # Most chunks are one small masked text frame.
            if (
                len(data) > 6
                and data[0] == 0x81
                and self._fragments is None
                and data[1] - 0x80 == len(data) - 6 < 126
            ):
                return [_text(_unmask(data[6:], data[2:6]))]
            if len(data) < 2:
                self._buffer = data
                return []
            return self._read(data, 0)
        if data:
            self._append(data)
        if len(self._buffer) - self._start < self._needed_bytes:
            return []
        return self._read(bytes(self._buffer), self._start)

    def _append(self, data: bytes) -> None:
        buffer = self._buffer
        if isinstance(buffer, bytes):
            # Appending to a `bytearray` keeps a message that comes byte by byte linear.
            self._buffer = buffer = bytearray(memoryview(buffer)[self._start :])
            self._start = 0
        buffer += data

    def _read(self, data: bytes, start: int) -> list[str | Control]:
        messages: list[str | Control] = []
        characters = 0
        end = len(data)
        self._buffer = b""
        self._start = 0
        self._needed_bytes = 2
        self.has_unread = False
        while end - start >= 2:
            if len(messages) >= _MAX_MESSAGES or characters >= _MAX_CHARACTERS:
                self._buffer, self._start, self.has_unread = data, start, True
                return messages
            first, second = data[start], data[start + 1]
            opcode = first & 0x0F
            self._check_header(first, second, opcode)
            # RFC 6455, 5.2: the length has 7, 16 or 64 bits, and must use the fewest.
            length = second & 0x7F
            head = 6
            if length == 126:
                if end - start < 4:
                    break
                length = int.from_bytes(data[start + 2 : start + 4], "big")
                head = 8
                if length < 126:
                    raise ProtocolViolation(PROTOCOL_ERROR, "length not minimally encoded")
            elif length == 127:
                if end - start < 10:
                    break
                length = int.from_bytes(data[start + 2 : start + 10], "big")
                head = 14
                if length < 65536:
                    raise ProtocolViolation(PROTOCOL_ERROR, "length not minimally encoded")
            if opcode < 0x8 and self._fragment_bytes + length > self.max_message_bytes:
                raise ProtocolViolation(MESSAGE_TOO_BIG, "message too big")
            if end - start < head + length:
                # Only a frame with a checked header waits for its payload, and it is not parsed
                # again before all of it is there.
                self._needed_bytes = head + length
                break
            body = start + head
            payload = _unmask(data[body : body + length], data[body - 4 : body])
            start = body + length
            if opcode >= 0x8:
                messages.append(_control(opcode, payload))
            else:
                message = self._assemble(first, opcode, payload)
                if message is not None:
                    messages.append(message)
                    characters += len(message)
        if start < end:
            self._buffer = data[start:] if start else data
        return messages

    def _check_header(self, first: int, second: int, opcode: int) -> None:
        # RFC 6455, 5.1: a client masks every frame.
        if not second & 0x80:
            raise ProtocolViolation(PROTOCOL_ERROR, "unmasked frame")
        # RFC 6455, 5.2; RFC 7692, 6: RSV1 marks the first frame of a compressed message.
        if first & 0x30:
            raise ProtocolViolation(PROTOCOL_ERROR, "reserved bit set")
        if first & 0x40 and not (self._inflate and opcode == _TEXT):
            raise ProtocolViolation(PROTOCOL_ERROR, "reserved bit set")
        # RFC 6455, 5.5: control frames are whole and short.
        if opcode >= 0x8:
            if opcode not in _CONTROL:
                raise ProtocolViolation(PROTOCOL_ERROR, "unknown opcode")
            if not first & 0x80:
                raise ProtocolViolation(PROTOCOL_ERROR, "fragmented control frame")
            if second & 0x7F > 125:
                raise ProtocolViolation(PROTOCOL_ERROR, "control frame longer than 125 bytes")
        elif opcode == _BINARY:
            raise ProtocolViolation(UNSUPPORTED_DATA, "binary messages are not supported")
        elif opcode > _BINARY:
            raise ProtocolViolation(PROTOCOL_ERROR, "unknown opcode")
        elif (opcode == _CONTINUATION) is (self._fragments is None):
            # RFC 6455, 5.4: fragments of two messages do not interleave.
            raise ProtocolViolation(PROTOCOL_ERROR, "fragment out of sequence")

    def _assemble(self, first: int, opcode: int, payload: bytes) -> str | None:
        final = first & 0x80
        if opcode == _TEXT:
            self._compressed = bool(first & 0x40)
            if final:
                return _text(self._decompress(payload))
            self._fragments = [payload]
            self._fragment_bytes = len(payload)
            return None
        fragments = self._fragments
        assert fragments is not None  # _check_header refuses a continuation without a start
        fragments.append(payload)
        self._fragment_bytes += len(payload)
        if len(fragments) > _FREE_FRAGMENTS + self._fragment_bytes // _FRAGMENT_BYTES:
            raise ProtocolViolation(PROTOCOL_ERROR, "too many fragments")
        if not final:
            return None
        self._fragments = None
        self._fragment_bytes = 0
        return _text(self._decompress(b"".join(fragments)))

    def _decompress(self, payload: bytes) -> bytes:
        if not self._compressed:
            return payload
        # A new window for each message: RFC 7692, 7.1.1, client_no_context_takeover.
        inflater = zlib.decompressobj(wbits=-15)
        try:
            expanded = inflater.decompress(payload + _DEFLATE_TAIL, self.max_message_bytes + 1)
        except zlib.error:
            raise ProtocolViolation(INVALID_PAYLOAD, "invalid compressed data") from None
        if len(expanded) > self.max_message_bytes:
            raise ProtocolViolation(MESSAGE_TOO_BIG, "message too big")
        return expanded


def _unmask(payload: bytes, mask: bytes) -> bytes:
    # One XOR of two big integers: far quicker than a loop over bytes.
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(
        length, "little"
    )


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(INVALID_PAYLOAD, "text is not valid UTF-8") from None


def _control(opcode: int, payload: bytes) -> Control:
    # RFC 6455, 5.5.1: a close frame has no payload, or a status code and UTF-8 text.
    if opcode == Opcode.CLOSE and payload:
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not (code in _CLOSE_CODES or 3000 <= code < 5000):
            raise ProtocolViolation(PROTOCOL_ERROR, "invalid close frame")
        _text(payload[2:])
    return Control(_CONTROL[opcode], payload)
