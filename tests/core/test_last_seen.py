"""Tests what is kept of users who have gone."""

from server.core.occupancy.config import OccupancyConfig
from server.core.occupancy.last_seen import LastSeen

ANN, BOB, EVE = ("acme", "ann"), ("acme", "bob"), ("other", "eve")


def last_seen(*, seconds: float = 10.0, per_org: int = 10, total: int = 10) -> LastSeen:
    return LastSeen(OccupancyConfig(seen_seconds=seconds, seen_per_org=per_org, seen_total=total))


def test_user_is_forgotten_in_time() -> None:
    seen = last_seen()
    assert seen.record(ANN, 1_000) == []
    assert seen.get(ANN, 10_999) == 1_000
    assert seen.get(ANN, 11_000) is None
    assert seen.record(BOB, 11_000) == [ANN]


def test_user_is_kept_only_in_its_org() -> None:
    seen = last_seen()
    seen.record(ANN, 1_000)
    assert seen.get(("other", "ann"), 1_000) is None


def test_earliest_user_of_an_org_makes_room() -> None:
    seen = last_seen(per_org=2)
    for at_ms, user in enumerate([EVE, ANN, BOB, ANN]):
        assert seen.record(user, at_ms) == []
    assert seen.record(("acme", "cay"), 9) == [BOB]
    assert (seen.get(ANN, 9), seen.get(EVE, 9)) == (3, 0)


def test_largest_org_makes_room_for_others() -> None:
    seen = last_seen(total=3)
    for at_ms, user in enumerate([ANN, BOB, EVE]):
        seen.record(user, at_ms)
    assert seen.record(("third", "fay"), 9) == [ANN]


def test_returned_user_takes_no_room() -> None:
    seen = last_seen(total=1)
    seen.record(ANN, 1)
    assert seen.forget(ANN)
    assert not seen.forget(ANN)
    assert seen.record(BOB, 2) == []


def test_nothing_is_kept_for_no_time() -> None:
    seen = last_seen(seconds=0)
    assert seen.record(ANN, 1) == []
    assert seen.get(ANN, 1) is None
