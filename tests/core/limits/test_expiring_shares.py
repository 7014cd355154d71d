"""Shares of items that expire elsewhere."""

from server.core.limits.expiring_shares import ExpiringShares
from server.core.limits.shares import Owner, Quota, ShareLimits

ANN, EVE = Owner("acme", "ann"), Owner("evil", "eve")


def shares_of(count: int = 2, size_bytes: int = 100) -> ExpiringShares[str]:
    limits = ShareLimits(Quota(), Quota(), Quota(count, size_bytes))
    return ExpiringShares(limits, keep_seconds=10.0)


def test_oldest_items_of_the_holder_are_returned_once() -> None:
    shares = shares_of()
    assert shares.put("kept", EVE, 1, 0.0) == []
    assert [shares.put(name, ANN, 1, 0.0) for name in "abc"] == [[], [], ["a"]]
    assert shares.put("b", ANN, 1, 1.0) == []
    assert shares.put("d", ANN, 1, 1.0) == ["c"]


def test_item_that_is_too_large_alone_stays() -> None:
    shares = shares_of()
    assert shares.put("a", ANN, 60, 0.0) == []
    assert shares.put("b", ANN, 200, 0.0) == ["a"]
    assert len(shares) == 1


def test_items_expire_after_their_last_change() -> None:
    shares = shares_of()
    shares.put("a", ANN, 1, 0.0)
    shares.put("b", ANN, 1, 5.0)
    assert shares.put("c", ANN, 1, 10.0) == []
    assert shares.put("d", ANN, 1, 12.0) == ["b"]


def test_item_moves_to_its_last_owner() -> None:
    shares = shares_of()
    for name in "ab":
        shares.put(name, ANN, 1, 0.0)
    assert shares.put("a", EVE, 1, 0.0) == []
    assert shares.put("c", ANN, 1, 0.0) == []
