"""The frame reader: any chunks give the same messages, and violations are refused."""

import contextlib
import gc
import sys
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.core.wire.frames import (
    close_frame,
    deflate_text_frames,
    pong_frame,
    split_text_frames,
    text_frame,
)
from server.core.wire.websocket import Control, FrameReader, Opcode, ProtocolViolation
from tests.kit.clients.wire import masked
from tests.kit.network.hostile import HOSTILE_INPUTS, MAX_MESSAGE_BYTES, HostileInput


def reader(*, inflate: bool = False) -> FrameReader:
    return FrameReader(MAX_MESSAGE_BYTES, inflate=inflate)


def read_all(frames: FrameReader, data: bytes) -> list[str | Control]:
    """Feed a chunk, and read on while the reader has more of it."""
    messages = frames.feed(data)
    while frames.has_unread:
        messages += frames.feed()
    return messages


controls = st.builds(
    Control, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125)
) | st.just(Control(Opcode.CLOSE, b"\x03\xe8bye"))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[str | Control]]:
    """Any valid frames, with fragments and control frames between them."""
    wire = b""
    messages: list[str | Control] = []

    def add_controls() -> None:
        nonlocal wire
        for control in draw(st.lists(controls, max_size=2)):
            wire += masked(control.payload, first=0x80 | control.opcode)
            messages.append(control)

    for text in draw(st.lists(st.text(max_size=300), max_size=5)):
        add_controls()
        rest = text.encode()
        opcode = 0x01
        for cut in draw(st.lists(st.integers(0, 200), max_size=3)):
            wire += masked(rest[:cut], first=opcode)
            rest = rest[cut:]
            opcode = 0x00
            add_controls()
        wire += masked(rest, first=0x80 | opcode)
        messages.append(text)
    return wire, messages


@given(conversations(), st.lists(st.integers(1, 40), max_size=200))
def test_messages_do_not_depend_on_chunk_boundaries(
    conversation: tuple[bytes, list[str | Control]], cuts: list[int]
) -> None:
    wire, messages = conversation
    frames = reader()
    out: list[str | Control] = []
    start = 0
    for cut in cuts:
        out += read_all(frames, wire[start : start + cut])
        start += cut
    out += read_all(frames, wire[start:])
    assert out == messages


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536])
def test_every_length_encoding_is_read_in_any_chunks(length: int) -> None:
    wire = masked(b"x" * length)
    assert reader().feed(wire) == ["x" * length]
    frames = reader()
    for position in range(0, len(wire) - 1, 997):
        assert frames.feed(wire[position : min(position + 997, len(wire) - 1)]) == []
    assert frames.feed(wire[-1:]) == ["x" * length]


def test_fragments_join_inside_a_character_and_around_a_ping() -> None:
    euro = "€".encode()
    frames = reader()
    assert frames.feed(masked(euro[:1], first=0x01)) == []
    assert frames.feed(masked(b"hello", first=0x89)) == [Control(Opcode.PING, b"hello")]
    assert frames.feed(masked(euro[1:2], first=0x00)) == []
    assert frames.feed(masked(euro[2:], first=0x80) + masked(b"next")) == ["€", "next"]


@pytest.mark.parametrize(("count", "size"), [(8, 0), (8, 1), (100, 600)])
def test_message_has_few_small_fragments_or_many_large_ones(count: int, size: int) -> None:
    wire = masked(b"x" * size, first=0x01) + masked(b"x" * size, first=0x00) * (count - 2)
    assert reader().feed(wire + masked(b"x" * size, first=0x80)) == ["x" * size * count]
    if size < 512:
        with pytest.raises(ProtocolViolation, match="too many fragments"):
            reader().feed(wire + masked(b"x" * size, first=0x00) * 2)


def test_control_frames_keep_their_order() -> None:
    wire = masked(b"", first=0x8A) + masked(b"a") + masked(b"\x03\xe8bye", first=0x88)
    assert reader().feed(wire) == [
        Control(Opcode.PONG, b""),
        "a",
        Control(Opcode.CLOSE, b"\x03\xe8bye"),
    ]


@pytest.mark.behaviour("D36")
def test_message_over_the_limit_is_refused_unread() -> None:
    assert reader().feed(masked(b"x" * MAX_MESSAGE_BYTES)) == ["x" * MAX_MESSAGE_BYTES]
    with pytest.raises(ProtocolViolation) as refusal:
        reader().feed(b"\x81\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"))
    assert refusal.value.close_code == 1009


FRAMING = [each for each in HOSTILE_INPUTS if each.name.startswith("frame: ")]


@pytest.mark.parametrize("hostile", FRAMING, ids=str)
@pytest.mark.parametrize("step", [1, 7, 1_000_000])
def test_malformed_frame_is_refused_in_any_chunks(hostile: HostileInput, step: int) -> None:
    frames = reader()

    def send() -> None:
        for start in range(0, len(hostile.wire), step):
            frames.feed(hostile.wire[start : start + step])

    with pytest.raises(ProtocolViolation) as refusal:
        send()
    assert 1002 <= refusal.value.close_code <= 1009
    assert refusal.value.reason


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"\x81\x7f" + (60_000).to_bytes(8, "big"), 1002),
        (b"\x81\x7e\xea\x60", 1002),
        (b"\x81\xff" + (125).to_bytes(8, "big"), 1002),
        (b"\x81\xfe\x00\x7d", 1002),
        (b"\x81\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), 1009),
        (b"\x82\xfe\xea\x60", 1003),
        (b"\x80\xfe\xea\x60", 1002),
        (b"\xc1\xfe\xea\x60", 1002),
        (b"\x89\xfe\xea\x60", 1002),
        (masked(b"x" * 40_000, first=0x01) + b"\x80\xfe\x9c\x40", 1009),
    ],
)
def test_invalid_header_is_refused_before_its_payload(head: bytes, code: int) -> None:
    for split in range(max(0, len(head) - 9), len(head)):
        frames = reader()
        with pytest.raises(ProtocolViolation) as refusal:
            assert frames.feed(head[:split]) + frames.feed(head[split:]) == []
        assert refusal.value.close_code == code


def test_idle_reader_holds_at_most_a_few_hundred_bytes() -> None:
    frames = reader()
    frames.feed(masked(b"x" * 50_000)[:-1])
    frames.feed(masked(b"x" * 50_000)[-1:] + masked(b"a", first=0x01) + masked(b"b", first=0x80))
    held = [each for each in gc.get_referents(frames) if not isinstance(each, type)]
    assert sys.getsizeof(frames) + sum(map(sys.getsizeof, held)) < 400


def test_reader_stops_after_some_messages_and_reads_on() -> None:
    frames = reader()
    wire = b"".join(masked(b"%d" % number) for number in range(40))
    assert frames.feed(wire) == [str(number) for number in range(16)]
    # A chunk that comes meanwhile waits behind the rest.
    assert frames.feed(masked(b"40")) == [str(number) for number in range(16, 32)]
    assert frames.has_unread
    assert frames.feed() == [str(number) for number in range(32, 41)]
    assert (frames.has_unread, frames.feed()) == (False, [])


def test_reader_stops_after_64_kilobytes_of_text() -> None:
    frames = reader()
    assert len(frames.feed(masked(b"x" * 40_000) * 6)) == 2
    assert frames.has_unread
    bomb = reader(inflate=True)
    assert len(bomb.feed(deflated(b"0" * 60_000) * 1000)) == 2


@given(st.binary(max_size=200))
def test_random_bytes_are_messages_or_a_violation(data: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        for message in read_all(reader(), data):
            assert isinstance(message, str | Control)


def deflated(text: bytes, *, first: int = 0xC1) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return masked((deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4], first=first)


def test_negotiated_compressed_messages_are_read() -> None:
    text = "price " * 100
    frames = reader(inflate=True)
    assert frames.feed(deflated(text.encode()) + masked(b"plain")) == [text, "plain"]
    half = deflated(text.encode(), first=0x41)
    assert frames.feed(half) == []
    assert frames.feed(masked(b"", first=0x80)) == [text]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (deflated(b"\0" * 10_000_000), 1009),
        (masked(b"\xff\xff\xff", first=0xC1), 1007),
        (masked(b"", first=0x41) + masked(b"", first=0xC0), 1002),
        (masked(b"x", first=0xC9), 1002),
        (deflated(b"\xff"), 1007),
    ],
)
def test_invalid_compressed_data_and_bombs_are_refused(wire: bytes, code: int) -> None:
    with pytest.raises(ProtocolViolation) as refusal:
        reader(inflate=True).feed(wire)
    assert refusal.value.close_code == code


@given(st.lists(st.binary(max_size=70_000), max_size=4))
@example([b"", b"x" * 125, b"x" * 126, b"x" * 65_535, b"x" * 65_536, b"end"])
def test_split_text_frames_returns_the_joined_payloads(payloads: list[bytes]) -> None:
    assert split_text_frames(b"".join(map(text_frame, payloads))) == payloads


def test_written_frames_match_rfc_6455() -> None:
    assert text_frame(b"Hello") == b"\x81\x05Hello"
    assert text_frame(b"x" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert text_frame(b"x" * 65536)[:10] == b"\x81\x7f" + (65536).to_bytes(8, "big")
    assert close_frame(1000) == b"\x88\x02\x03\xe8"
    assert pong_frame(b"hi") == b"\x8a\x02hi"


def test_deflate_keeps_messages_and_skips_short_ones() -> None:
    long, short = b"price " * 100, b"short"
    compressed = deflate_text_frames(text_frame(long) + text_frame(short))
    assert compressed[0] == 0xC1
    length = compressed[1]
    inflated = zlib.decompressobj(wbits=-15).decompress(
        compressed[2 : 2 + length] + b"\x00\x00\xff\xff"
    )
    assert inflated == long
    assert compressed[2 + length :] == text_frame(short)
