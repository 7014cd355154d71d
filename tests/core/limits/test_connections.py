"""Limits: exact at their edge, given back, and small however many come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.limits.connections import ConnectionLimits, ConnectRate, address_key
from server.core.limits.keys import LimitKey
from server.core.limits.token_bucket import TokenBucket


def limits(total: int = 0, per_ip: int = 0, per_user: int = 0) -> ConnectionLimits:
    return ConnectionLimits(total=total, per_ip=per_ip, per_user=per_user)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=3, now=0)
    assert [bucket.take(0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(0) == pytest.approx(0.1)
    assert bucket.take(0.05) == pytest.approx(0.05), "a refusal takes nothing"
    assert bucket.take(0.1) == 0
    assert [bucket.take(100) for _ in range(4)].count(0) == 3, "and it is never more than full"


def test_a_bucket_that_was_given_back_to_is_full_again() -> None:
    bucket = TokenBucket(rate=1, burst=2, now=0)
    bucket.take(0)
    assert bucket.full_at() == 1
    bucket.refund()
    bucket.refund()
    assert bucket.full_at() == 0


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=10, burst=1, now=5)
    bucket.take(5)
    assert bucket.take(4) > 0
    assert bucket.take(5) > 0


@given(st.lists(st.floats(0, 2), max_size=60))
def test_a_bucket_never_gives_more_than_burst_and_rate_allow(pauses: list[float]) -> None:
    bucket = TokenBucket(rate=3, burst=4, now=0)
    now, granted = 0.0, 0
    for pause in pauses:
        now += pause
        granted += bucket.take(now) == 0
        assert granted <= 4 + 3 * now + 1e-6


@pytest.mark.behaviour("C4")
def test_each_limit_of_connections_is_exact_at_its_edge() -> None:
    for each, code in ((limits(total=3), "full"), (limits(per_ip=3), "address")):
        leases = [each.open("192.0.2.1") for _ in range(3)]
        with pytest.raises(LimitError, match=code) as refused:
            each.open("192.0.2.1")
        assert refused.value.code is ErrorCode.LIMIT_CONNECTIONS
        leases[0].close()
        leases[0].close()
        leases[0] = each.open("192.0.2.1")
        with pytest.raises(LimitError):
            each.open("192.0.2.1")


def test_one_address_does_not_count_for_another_and_0_means_no_limit() -> None:
    one_each = limits(per_ip=1)
    one_each.open("192.0.2.1")
    one_each.open("192.0.2.2")
    endless = limits()
    for _ in range(1000):
        endless.open("192.0.2.1").identify("acme", "ann")


def test_a_user_is_counted_once_a_connection_and_given_back_with_it() -> None:
    each = limits(per_user=2)
    first, second, third = (each.open("192.0.2.1") for _ in range(3))
    first.identify("acme", "ann")
    first.identify("acme", "ann")
    second.identify("acme", "ann")
    with pytest.raises(LimitError, match="a user may have 2"):
        third.identify("acme", "ann")
    third.identify("other", "ann")
    first.forget("acme", "ann")
    with pytest.raises(LimitError):
        third.identify("acme", "ann")
    first.forget("acme", "ann")
    first.forget("acme", "ann")
    first.forget("acme", "nobody")
    third.identify("acme", "ann")
    for lease in (first, second, third):
        lease.close()
    assert each.tracked_count() == 0
    assert each.open_count == 0


def test_who_is_identified_after_leaving_takes_no_place() -> None:
    each = limits(per_user=1)
    gone = each.open("192.0.2.1")
    gone.close()
    with pytest.raises(RequestError, match="has ended"):
        gone.identify("acme", "ann")
    gone.forget("acme", "ann")
    assert each.tracked_count() == 0
    each.open("192.0.2.1").identify("acme", "ann")


def test_what_other_nodes_count_too_is_given_back_once_and_late_ones_at_once() -> None:
    given: list[LimitKey] = []
    each = ConnectionLimits(total=0, per_ip=0, per_user=0, on_release=given.append)
    lease = each.open("192.0.2.1")
    ann, bob = ("acme", "ann"), ("acme", "bob")
    for user in (ann, ann, bob):
        lease.identify(*user)
    for holder in ("192.0.2.1", ann, bob):
        assert not lease.is_shared(holder)
        lease.add_shared(holder)
        assert lease.is_shared(holder)
    lease.forget(*ann)
    assert given == [], "it is in another namespace still"
    lease.forget(*ann)
    lease.forget(*ann)
    assert given == [ann]
    for _ in range(2):
        lease.close()
    assert given == [ann, "192.0.2.1", bob]
    lease.add_shared(ann)
    assert given[3:] == [ann]


@pytest.mark.parametrize(
    ("ip", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_what_counts_as_one_address(ip: str, key: str) -> None:
    assert address_key(ip) == key


def test_attempts_are_limited_by_address_and_in_all_and_say_when_to_come_back() -> None:
    rate = ConnectRate(per_second=4, per_second_per_ip=2)
    for _ in range(4):
        rate.check("192.0.2.1", 0)
    with pytest.raises(LimitError, match="this address") as refused:
        rate.check("192.0.2.1", 0)
    assert refused.value.code is ErrorCode.LIMIT_RATE
    assert refused.value.retry_after_ms == 500
    for _ in range(4):
        rate.check("192.0.2.2", 0)
    with pytest.raises(LimitError, match="at this moment"):
        rate.check("192.0.2.3", 0)
    rate.check("192.0.2.1", 1)


def test_no_rate_means_no_limit() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=0)
    for _ in range(1000):
        rate.check("192.0.2.1", 0)
    assert rate.tracked_count() == 0


def test_the_table_of_addresses_stays_small_whatever_comes() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=1, max_tracked=100)
    for i in range(5000):
        rate.check(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 0)
        assert rate.tracked_count() <= 101
    for i in range(200):
        rate.check(f"172.16.0.{i}", 1000)
    assert rate.tracked_count() <= 101


def test_addresses_that_have_been_quiet_are_forgotten_as_others_come() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=1, max_tracked=1000)
    for i in range(100):
        rate.check(f"172.16.0.{i}", 0)
    assert rate.tracked_count() == 100
    for i in range(50):
        rate.check(f"172.16.1.{i}", 1000)
    assert rate.tracked_count() == 50


def test_an_address_under_its_limit_is_not_forgotten_while_there_is_room() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=1, max_tracked=1000)
    for _ in range(2):
        rate.check("192.0.2.1", 0)
    for i in range(500):
        rate.check(f"172.16.{i >> 8}.{i & 255}", 0)
    with pytest.raises(LimitError):
        rate.check("192.0.2.1", 0)


def test_an_address_that_keeps_coming_is_not_the_one_to_be_forgotten() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=1, max_tracked=10)
    for _ in range(2):
        rate.check("192.0.2.1", 0)
    for i in range(30):
        rate.check(f"172.16.0.{i}", 0)
        with pytest.raises(LimitError):
            rate.check("192.0.2.1", 0)
