"""Packets: compatible with the stock encoder and decoder in both directions."""

import contextlib
import json

import pytest
import socketio.packet
from hypothesis import given
from hypothesis import strategies as st

from server.core.wire.packets import (
    MalformedPacket,
    Packet,
    PacketKind,
    ack_packet,
    connect_error_packet,
    connect_packet,
    disconnect_packet,
    event_packet,
    read_packet,
)
from server.core.wire.payloads import MalformedPayload, decode_payload, encode_payload
from tests.kit.network.hostile import HOSTILE_INPUTS, HostileInput


def decode_packet(text: str) -> Packet:
    return read_packet(text).decode()


Stock = socketio.packet.Packet


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0", Packet(PacketKind.CONNECT, "/", None, None)),
        ("0{}", Packet(PacketKind.CONNECT, "/", None, {})),
        ("0/market", Packet(PacketKind.CONNECT, "/market", None, None)),
        ("0/market,", Packet(PacketKind.CONNECT, "/market", None, None)),
        ('0/market,{"token":"t"}', Packet(PacketKind.CONNECT, "/market", None, {"token": "t"})),
        ("1", Packet(PacketKind.DISCONNECT, "/", None, None)),
        ("1/market", Packet(PacketKind.DISCONNECT, "/market", None, None)),
        ("1/market,", Packet(PacketKind.DISCONNECT, "/market", None, None)),
        ('2/market,["a"]', Packet(PacketKind.EVENT, "/market", None, ["a"])),
        ('2/market,17["a",{}]', Packet(PacketKind.EVENT, "/market", 17, ["a", {}])),
        ('20["a"]', Packet(PacketKind.EVENT, "/", 0, ["a"])),
        ("3/market,5[]", Packet(PacketKind.ACK, "/market", 5, [])),
    ],
)
def test_packet_is_decoded(text: str, packet: Packet) -> None:
    assert decode_packet(text) == packet


RESERVED = (
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
)
names = st.text(min_size=1, max_size=20).filter(lambda name: name not in RESERVED)


@given(names, st.none() | st.integers(0, 10**14), st.dictionaries(st.text(), st.integers(0, 9)))
def test_packets_of_the_stock_encoder_are_decoded(
    name: str, ack_id: int | None, payload: dict[str, int]
) -> None:
    text = Stock(
        socketio.packet.EVENT, data=[name, payload], namespace="/market", id=ack_id
    ).encode()
    assert decode_packet(text) == Packet(PacketKind.EVENT, "/market", ack_id, [name, payload])


@given(names, st.dictionaries(st.text(), st.integers(0, 9)))
def test_stock_decoder_reads_our_packets(name: str, payload: dict[str, int]) -> None:
    body = json.dumps(payload).encode()
    for namespace in ("/", "/market"):
        event = Stock(encoded_packet=event_packet(namespace, name, body)[1:].decode())
        assert (event.packet_type, event.namespace or "/") == (socketio.packet.EVENT, namespace)
        assert event.data == [name, payload]
        ack = Stock(encoded_packet=ack_packet(namespace, 7, body)[1:].decode())
        assert (ack.packet_type, ack.id, ack.data) == (socketio.packet.ACK, 7, [payload])


def test_connect_and_disconnect_packets_are_exact() -> None:
    assert connect_packet("/market", "abc") == b'40/market,{"sid":"abc"}'
    assert connect_error_packet("/market", "no", {"code": "x"}) == (
        b'44/market,{"message":"no","data":{"code":"x"}}'
    )
    assert disconnect_packet("/market") == b"41/market,"
    assert disconnect_packet("/") == b"41"


SOCKET_FAULTS = [
    each
    for each in HOSTILE_INPUTS
    if each.name.startswith("packet: ") and each.wire[6:7] and "namespace" not in each.name
]


def unmasked(wire: bytes) -> str:
    head = 8 if wire[1] == 0xFE else 6
    mask = wire[head - 4 : head]
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(wire[head:])).decode(
        "utf-8", "surrogatepass"
    )


@pytest.mark.parametrize(
    "hostile", [each for each in SOCKET_FAULTS if unmasked(each.wire).startswith("4")], ids=str
)
def test_malformed_packet_is_refused(hostile: HostileInput) -> None:
    with pytest.raises(MalformedPacket) as refusal:
        decode_packet(unmasked(hostile.wire)[1:])
    assert refusal.value.reason


@given(st.text(max_size=40))
def test_any_text_is_a_packet_or_malformed(text: str) -> None:
    with contextlib.suppress(MalformedPacket):
        packet = decode_packet(text)
        assert isinstance(packet.kind, PacketKind)
        assert packet.namespace.startswith("/")


def test_polling_body_is_decoded_whole_or_refused() -> None:
    assert decode_payload("3\x1e4€".encode(), max_packets=2) == ["3", "4€"]
    assert encode_payload([b"2", b"42[]"]) == b"2\x1e42[]"
    for body in (b"", b"\x1e", b"3\x1e", b"3\x1e3\x1e3", b"\xff"):
        with pytest.raises(MalformedPayload):
            decode_payload(body, max_packets=2)
