"""The trace of a connection at DEBUG: direction, kind and size, never what is carried."""

import logging

import pytest

from server.transport import trace
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import running


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        ('0{"sid":"x"}', "open"),
        ("2", "ping"),
        ("2probe", "ping"),
        ("3", "pong"),
        ('40/market,{"token":"x"}', "CONNECT"),
        ("41/market,", "DISCONNECT"),
        ('42/market,["price",{}]', "EVENT"),
        ('43/market,1[{"ok":true}]', "ACK"),
        ('44/market,{"message":"no"}', "CONNECT_ERROR"),
        ("4", "unknown"),
        ("", "unknown"),
        ("9x", "unknown"),
        ("\N{SUPERSCRIPT TWO}", "unknown"),
        ("4\N{SUPERSCRIPT TWO}", "unknown"),
    ],
)
def test_kind_is_the_type_of_the_packet(packet: str, kind: str) -> None:
    assert trace.kind_of(packet) == kind


async def test_trace_shows_both_directions_and_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "server.transport.trace")
    async with running() as floor:
        token = floor.token()
        client = await RawClient.connect(floor.port, token)
        await client.call("subscribe", {"topics": ["PRICE:SECRETCOIN"]})
        await client.close()
    lines = [each for each in caplog.records if each.name == "server.transport.trace"]
    texts = [each.getMessage() for each in lines]
    assert texts[:2] == ["received CONNECT", "sent CONNECT, EVENT"]
    assert texts[2:4] == ["received EVENT", "sent ACK"]
    assert all(vars(each)["size"] > 0 and vars(each)["connection"] for each in lines)
    assert not any(token in text or "SECRETCOIN" in text for text in map(repr, map(vars, lines)))


async def test_nothing_is_traced_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        await client.close()
    assert not [each for each in caplog.records if each.name == "server.transport.trace"]
