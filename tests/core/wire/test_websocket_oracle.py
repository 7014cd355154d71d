"""What the frame reader accepts of mangled frames, aiohttp's reader understands alike."""

import asyncio
import contextlib

from aiohttp import WSMsgType
from aiohttp._websocket.reader_py import WebSocketDataQueue, WebSocketReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import example, given
from hypothesis import strategies as st

from server.core.wire.websocket import Control, FrameReader, Opcode, ProtocolViolation
from tests.kit.clients.wire import masked

MAX_BYTES = 2000


def _read_with_aiohttp(wire: bytes) -> list[str | Control]:
    loop = asyncio.new_event_loop()
    try:
        queue = WebSocketDataQueue(BaseProtocol(loop), 2**20, loop=loop)
        # A larger limit: aiohttp counts one byte less, and limits are not compared here.
        WebSocketReader(queue, 10 * MAX_BYTES, compress=False, decode_text=True).feed_data(wire)
        messages: list[str | Control] = []
        for message, _ in queue._buffer:
            if message.type is WSMsgType.TEXT:
                messages.append(str(message.data))
            elif message.type is WSMsgType.BINARY:
                break  # our reader refuses it
            elif message.type is WSMsgType.CLOSE:
                code = int(message.data).to_bytes(2, "big") if message.data else b""
                messages.append(Control(Opcode.CLOSE, code + str(message.extra).encode()))
            else:
                messages.append(Control(Opcode(message.type.value), bytes(message.data)))
        return messages
    finally:
        loop.close()


frames = st.builds(
    lambda payload, first: masked(payload, first=first),
    st.text(max_size=40).map(str.encode)
    | st.binary(max_size=10)
    | st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"x" * 126, b"x" * MAX_BYTES]),
    st.sampled_from([0x81, 0x81, 0x81, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8A, 0x82, 0xC1]),
)


@st.composite
def mangled(draw: st.DrawFn) -> list[bytes]:
    """A few frames, some of their bytes replaced, removed or repeated, in chunks."""
    wire = bytearray(b"".join(draw(st.lists(frames, min_size=1, max_size=6))))
    for _ in range(draw(st.integers(0, 3))):
        # Faults in the header matter most; most frames are short.
        index = draw(st.integers(0, max(0, len(wire) - 1)))
        change = draw(st.sampled_from(["replace", "remove", "repeat"]))
        if change == "replace":
            wire[index : index + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "remove":
            del wire[index : index + 1]
        else:
            wire[index:index] = wire[index : index + draw(st.integers(1, 8))]
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=4)))
    return [bytes(wire[a:b]) for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@given(mangled())
@example([masked(b"\xe2", first=0x01), masked(b"\x82\xac", first=0x80)])
@example([masked(b"x" * MAX_BYTES)])
def test_reader_accepts_no_more_than_aiohttp(chunks: list[bytes]) -> None:
    reader = FrameReader(MAX_BYTES)
    messages: list[str | Control] = []
    with contextlib.suppress(ProtocolViolation):
        for chunk in chunks:
            messages += reader.feed(chunk)
            while reader.has_unread:
                messages += reader.feed()
    assert _read_with_aiohttp(b"".join(chunks))[: len(messages)] == messages


def test_oracle_reads_valid_frames() -> None:
    wire = masked(b"a") + masked(b"hi", first=0x89) + masked(b"\x03\xe8bye", first=0x88)
    assert _read_with_aiohttp(wire) == [
        "a",
        Control(Opcode.PING, b"hi"),
        Control(Opcode.CLOSE, b"\x03\xe8bye"),
    ]
