"""Idempotency: a retry gets the first receipt, another message is refused."""

import pytest

from server.core.errors import FloorcastError
from server.core.log.entries import Position, Receipt
from server.core.log.idempotency import Claim, IdempotencyWindow

RECEIPT = Receipt(Position("e1", 7), 1000)
CLAIM = Claim("ann\0PRICE:A\01", b"digest")


def make_window(*, max_claims: int = 10) -> IdempotencyWindow:
    return IdempotencyWindow(max_claims=max_claims, window_seconds=60.0)


def test_retry_within_the_window_gets_the_same_receipt() -> None:
    window = make_window()
    assert window.find(CLAIM, 0.0) is None
    window.store(CLAIM, RECEIPT, 0.0)
    assert window.find(CLAIM, 59.9) == RECEIPT
    assert window.find(CLAIM, 60.0) is None
    assert len(window) == 0


def test_other_message_under_the_same_id_conflicts() -> None:
    window = make_window()
    window.store(CLAIM, RECEIPT, 0.0)
    with pytest.raises(FloorcastError) as refusal:
        window.find(Claim(CLAIM.key, b"another"), 1.0)
    assert refusal.value.code == "publish.conflict"
    assert window.find(CLAIM, 1.0) == RECEIPT


def test_window_drops_the_oldest_claim() -> None:
    window = make_window(max_claims=2)
    for number in range(3):
        window.store(Claim(str(number), b""), Receipt(Position("e1", number), 0), float(number))
    assert len(window) == 2
    assert window.find(Claim("0", b""), 3.0) is None
    assert window.find(Claim("2", b""), 3.0) == Receipt(Position("e1", 2), 0)


def test_storing_a_claim_twice_changes_nothing() -> None:
    window = make_window()
    window.store(CLAIM, RECEIPT, 0.0)
    window.store(CLAIM, Receipt(Position("e1", 8), 2000), 1.0)
    assert window.find(CLAIM, 2.0) == RECEIPT
    assert window.find(CLAIM, 60.0) is None
    assert window.find(CLAIM, 61.0) is None
