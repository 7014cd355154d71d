"""Offsets: one count for a node, which parses only its own."""

import json

import pytest

from server.core.recovery.offsets import Offsets, plain_frame
from server.core.wire.frames import split_text_frames


def test_allocate_returns_the_first_of_several_serials() -> None:
    offsets = Offsets("ab12")
    assert [offsets.allocate(), offsets.allocate(3), offsets.allocate()] == [1, 2, 5]
    assert offsets.last_serial == 5


def test_frame_adds_the_offset_as_last_argument() -> None:
    event = b'42/market,["price",{"seq":1}'
    [numbered] = split_text_frames(Offsets("ab12").frame(event, 7))
    [plain] = split_text_frames(plain_frame(event))
    assert json.loads(numbered[10:]) == ["price", {"seq": 1}, "ab12-7"]
    assert json.loads(plain[10:]) == ["price", {"seq": 1}]


def test_parse_accepts_an_issued_offset_of_this_node() -> None:
    offsets = Offsets("ab12")
    offsets.allocate(9)
    assert offsets.parse("ab12-9") == 9
    assert offsets.parse("ab12-0") == 0


@pytest.mark.parametrize(
    "forged",
    [
        None,
        "",
        "9",
        "ab12-",
        "ab12-10",
        "ab12--1",
        "ab12-+1",
        "ab12- 1",
        "ab12-1\n",
        "ab12-1.0",
        "ab12-٣",
        "ab12-" + "9" * 16,
        "ab13-1",
        "AB12-1",
        "xab12-1",
    ],
)
def test_parse_refuses_a_forged_offset(forged: str | None) -> None:
    offsets = Offsets("ab12")
    offsets.allocate(9)
    assert offsets.parse(forged) is None
