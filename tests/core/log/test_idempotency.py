"""Idempotency: a retry gets the first receipt, another message is refused."""

import pytest

from server.core.errors import FloorcastError
from server.core.limits.shares import Owner
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


def test_one_org_never_pushes_out_the_ids_of_another() -> None:
    window = IdempotencyWindow(max_claims=10, window_seconds=60.0)
    kept = Claim("kept", b"", Owner("small", "ann"))
    window.store(kept, RECEIPT, 0.0)
    for number in range(100):
        window.store(Claim(f"flood{number}", b"", Owner("large", "eve")), RECEIPT, 1.0)
    assert len(window) == 10
    assert window.find(kept, 2.0) == RECEIPT


def test_org_and_publisher_forget_their_own_oldest_ids() -> None:
    window = IdempotencyWindow(
        max_claims=100, window_seconds=60.0, max_per_org=3, max_per_publisher=3
    )
    ids = {}
    for user, count in (("ann", 1), ("bob", 5)):
        for number in range(count):
            claim = ids[user, number] = Claim(f"{user}{number}", b"", Owner("acme", user))
            window.store(claim, RECEIPT, 0.0)
    remembered = [key for key, claim in ids.items() if window.find(claim, 1.0) is not None]
    assert remembered == [("ann", 0), ("bob", 3), ("bob", 4)]
