"""Idempotency: a retry within the window has the place of the first, another message is refused."""

import pytest

from server.core.errors import FloorcastError
from server.core.log.entries import Position, Receipt
from server.core.log.idempotency import Claim, IdempotencyWindow

HERE = Receipt(Position("e1", 7), 1000)
CLAIM = Claim("ann\0PRICE:A\01", b"digest")


def window(*, max_claims: int = 10) -> IdempotencyWindow:
    return IdempotencyWindow(max_claims=max_claims, window_seconds=60.0)


def test_the_same_message_has_the_same_place_until_the_window_has_passed() -> None:
    one = window()
    assert one.find(CLAIM, 0.0) is None
    one.store(CLAIM, HERE, 0.0)
    assert one.find(CLAIM, 59.9) == HERE
    assert one.find(CLAIM, 60.0) is None
    assert len(one) == 0


def test_another_message_under_the_same_id_is_a_conflict() -> None:
    one = window()
    one.store(CLAIM, HERE, 0.0)
    with pytest.raises(FloorcastError) as refused:
        one.find(Claim(CLAIM.key, b"another"), 1.0)
    assert refused.value.code == "publish.conflict"
    assert one.find(CLAIM, 1.0) == HERE


def test_the_oldest_goes_where_there_are_too_many() -> None:
    one = window(max_claims=2)
    for number in range(3):
        one.store(Claim(str(number), b""), Receipt(Position("e1", number), 0), float(number))
    assert len(one) == 2
    assert one.find(Claim("0", b""), 3.0) is None
    assert one.find(Claim("2", b""), 3.0) == Receipt(Position("e1", 2), 0)


def test_keeping_a_claim_twice_changes_nothing() -> None:
    one = window()
    one.store(CLAIM, HERE, 0.0)
    one.store(CLAIM, Receipt(Position("e1", 8), 2000), 1.0)
    assert one.find(CLAIM, 2.0) == HERE
    assert one.find(CLAIM, 60.0) is None
    assert one.find(CLAIM, 61.0) is None
