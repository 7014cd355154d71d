"""Writes a server's WebSocket frames (RFC 6455), and splits text frames again."""

import struct
import zlib

_FIN_TEXT = 0x81
_FIN_DEFLATED_TEXT = 0xC1
_FIN_CLOSE = 0x88
_FIN_PONG = 0x8A
# RFC 6455, 5.2: the length has 7, 16 or 64 bits.
_HEAD_7, _HEAD_16, _HEAD_64 = (struct.Struct(f">{each}").pack for each in ("BB", "BBH", "BBQ"))
# Shorter messages hardly shrink.
_MIN_DEFLATED_BYTES = 128


def text_frame(payload: bytes) -> bytes:
    """One complete text message, the same for every client: RFC 6455, 5.1 forbids masking it."""
    # As `_frame`, without its call: the hot path of all deliveries.
    length = len(payload)
    if length < 126:
        return _HEAD_7(_FIN_TEXT, length) + payload
    if length < 65536:
        return _HEAD_16(_FIN_TEXT, 126, length) + payload
    return _frame(_FIN_TEXT, payload)


def close_frame(code: int) -> bytes:
    """A close frame with a status code (RFC 6455, 7.4)."""
    return _frame(_FIN_CLOSE, code.to_bytes(2, "big"))


def pong_frame(payload: bytes) -> bytes:
    """The answer to a client's ping, with the ping's payload (RFC 6455, 5.5.3)."""
    return _frame(_FIN_PONG, payload)


def _frame(first_byte: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return _HEAD_7(first_byte, length) + payload
    if length < 65536:
        return _HEAD_16(first_byte, 126, length) + payload
    return _HEAD_64(first_byte, 127, length) + payload


def split_text_frames(frames: bytes) -> list[bytes]:
    """The payloads of consecutive frames written by `text_frame`."""
    payloads = []
    start = 0
    while start < len(frames):
        length = frames[start + 1]
        start += 2
        if length == 126:
            length = int.from_bytes(frames[start : start + 2], "big")
            start += 2
        elif length == 127:
            length = int.from_bytes(frames[start : start + 8], "big")
            start += 8
        payloads.append(frames[start : start + length])
        start += length
    return payloads


def deflate_text_frames(frames: bytes) -> bytes:
    """Compress each message with a window of its own (RFC 7692, no context takeover).

    Without a shared window the result is valid for every client that negotiated deflate, so a
    message is compressed once for all of them.
    """
    return b"".join(map(_deflated_frame, split_text_frames(frames)))


def _deflated_frame(payload: bytes) -> bytes:
    if len(payload) < _MIN_DEFLATED_BYTES:
        return text_frame(payload)
    deflater = zlib.compressobj(level=1, wbits=-15)
    deflated = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    # RFC 7692, 7.2.1: the tail of the flush is not sent.
    return _frame(_FIN_DEFLATED_TEXT, deflated[:-4])
