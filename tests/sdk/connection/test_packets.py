"""Decoding a server's packets, and encoding packets that the server accepts."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk import InvalidData, ProtocolError
from client_sdk.connection.packets import (
    Packet,
    PacketType,
    connect_packet,
    decode_packet,
    encode,
    parse_handshake,
)
from client_sdk.connection.packets import event_packet as our_event
from server.core.wire.packets import event_packet, read_packet
from server.core.wire.strict_json import dumps


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ('0{"sid":"x"}', Packet(PacketType.OPEN, body='{"sid":"x"}')),
        ("1", Packet(PacketType.CLOSE)),
        ("2", Packet(PacketType.PING)),
        ("6", Packet(PacketType.NOOP)),
        ('40/market,{"sid":"x"}', Packet(PacketType.CONNECT, "/market", body='{"sid":"x"}')),
        ("41/market,", Packet(PacketType.DISCONNECT, "/market")),
        ('44/market,{"a":1}', Packet(PacketType.CONNECT_ERROR, "/market", body='{"a":1}')),
        ('42/market,["x",{"a":1}]', Packet(PacketType.EVENT, "/market", None, "x", '{"a":1}')),
        ('42/session,7["n",{"a":[]}]', Packet(PacketType.EVENT, "/session", 7, "n", '{"a":[]}')),
        ('42["price",{}]', Packet(PacketType.EVENT, "/", None, "price", "{}")),
        ('43/market,12[{"ok":true}]', Packet(PacketType.ACK, "/market", 12, "", '{"ok":true}')),
    ],
)
def test_packets_of_a_server_are_decoded(text: str, packet: Packet) -> None:
    assert decode_packet(text) == packet


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ('42/market,["price"]', {}),
        ('42/market,["price",{"a":1},"offset"]', {"a": 1}),
        ('42/market,["price", {"a": 1}]', {"a": 1}),
    ],
)
def test_unusual_event_packets_are_decoded(text: str, body: dict[str, int]) -> None:
    packet = decode_packet(text)
    assert packet.event == "price"
    assert json.loads(packet.body) == body


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "5",
        "4",
        "45-[]",
        "42/market,",
        "42/market,{}",
        "42/market,[]",
        "42/market,[1]",
        '42/market,["x",}]',
        "43/market,[1]",
        "43/market,1",
        "43/market,1[1",
    ],
)
def test_malformed_packet_raises_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode_packet(text)


def test_handshake_gives_the_heartbeat_timeout() -> None:
    assert (
        parse_handshake('{"sid":"x","pingInterval":25000,"pingTimeout":20000}').timeout_seconds
        == 45.0
    )
    with pytest.raises(ProtocolError):
        parse_handshake('{"sid":"x"}')


texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=10,
)
objects = st.dictionaries(texts, json_values, max_size=5)


@given(objects)
def test_server_decodes_what_the_client_encodes(data: dict[str, Any]) -> None:
    text = our_event("/session", 3, "send", encode({"session_id": "a", "data": data}))
    packet = read_packet(text[1:]).decode()
    assert packet.data == ["send", {"session_id": "a", "data": data}]
    assert packet.id == 3


@given(objects)
def test_client_decodes_what_the_server_encodes(data: dict[str, Any]) -> None:
    packet = decode_packet(event_packet("/market", "price", dumps(data)).decode())
    assert packet.event == "price"
    assert json.loads(packet.body) == data


def test_decimals_and_dates_become_text() -> None:
    data = {"price": Decimal("1.50"), "at": datetime(2026, 1, 2, tzinfo=UTC)}
    assert json.loads(encode(data)) == {"price": "1.50", "at": "2026-01-02T00:00:00Z"}


@pytest.mark.parametrize(
    "data",
    [
        {"x": float("nan")},
        {"x": [float("inf")]},
        {"x": 2**64},
        {"x": -(2**63) - 1},
        {"x": "\ud800"},
        {"x": object()},
    ],
)
def test_data_that_would_end_the_connection_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidData) as caught:
        encode(data)
    assert caught.value.code == "client.invalid_data"


def test_nesting_limit_is_the_servers() -> None:
    def nested(depth: int) -> dict[str, object]:
        value: object = {}
        for _ in range(depth - 2):
            value = [value]
        return {"x": value}

    frame = '["publish",{"messages":[%s]}]'
    assert read_packet(f"2/market,1{frame % encode({'data': nested(28)})}").decode()
    with pytest.raises(InvalidData):
        encode({"data": nested(29)})


def test_connect_packet_carries_the_token() -> None:
    packet = read_packet(connect_packet("/market", {"token": "x", "recovery": False})[1:]).decode()
    assert packet.data == {"token": "x", "recovery": False}
