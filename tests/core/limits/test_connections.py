"""Connection limits: exact at their edge, released, and bounded in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.limits.connections import ConnectionLimits, ConnectRate, address_key
from server.core.limits.keys import LimitKey
from server.core.limits.token_bucket import TokenBucket


def make_limits(total: int = 0, per_ip: int = 0, per_user: int = 0) -> ConnectionLimits:
    return ConnectionLimits(total=total, per_ip=per_ip, per_user=per_user)


def test_bucket_grants_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=3, now=0)
    assert [bucket.take(0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(0) == pytest.approx(0.1)
    assert bucket.take(0.05) == pytest.approx(0.05), "a refusal takes nothing"
    assert bucket.take(0.1) == 0
    assert [bucket.take(100) for _ in range(4)].count(0) == 3, "a bucket never exceeds its burst"


def test_refunded_bucket_is_full_again() -> None:
    bucket = TokenBucket(rate=1, burst=2, now=0)
    bucket.take(0)
    assert bucket.full_at() == 1
    bucket.refund()
    bucket.refund()
    assert bucket.full_at() == 0


def test_bucket_gains_nothing_while_the_clock_stands_or_goes_back() -> None:
    bucket = TokenBucket(rate=10, burst=1, now=5)
    bucket.take(5)
    assert bucket.take(4) > 0
    assert bucket.take(5) > 0


@given(st.lists(st.floats(0, 2), max_size=60))
def test_bucket_never_exceeds_its_burst_and_rate(pauses: list[float]) -> None:
    bucket = TokenBucket(rate=3, burst=4, now=0)
    now, granted = 0.0, 0
    for pause in pauses:
        now += pause
        granted += bucket.take(now) == 0
        assert granted <= 4 + 3 * now + 1e-6


@pytest.mark.behaviour("C4")
def test_connection_limits_refuse_exactly_one_too_many() -> None:
    for each, code in ((make_limits(total=3), "full"), (make_limits(per_ip=3), "address")):
        leases = [each.open("192.0.2.1") for _ in range(3)]
        with pytest.raises(LimitError, match=code) as refusal:
            each.open("192.0.2.1")
        assert refusal.value.code is ErrorCode.LIMIT_CONNECTIONS
        leases[0].close()
        leases[0].close()
        leases[0] = each.open("192.0.2.1")
        with pytest.raises(LimitError):
            each.open("192.0.2.1")


def test_addresses_count_separately_and_0_means_no_limit() -> None:
    limited = make_limits(per_ip=1)
    limited.open("192.0.2.1")
    limited.open("192.0.2.2")
    unlimited = make_limits()
    for _ in range(1000):
        unlimited.open("192.0.2.1").identify("acme", "ann")


def test_lease_counts_a_user_once_and_releases_it() -> None:
    each = make_limits(per_user=2)
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


def test_closed_lease_refuses_to_identify_a_user() -> None:
    each = make_limits(per_user=1)
    closed = each.open("192.0.2.1")
    closed.close()
    with pytest.raises(RequestError, match="has ended"):
        closed.identify("acme", "ann")
    closed.forget("acme", "ann")
    assert each.tracked_count() == 0
    each.open("192.0.2.1").identify("acme", "ann")


def test_lease_releases_each_shared_key_once() -> None:
    released: list[LimitKey] = []
    each = ConnectionLimits(total=0, per_ip=0, per_user=0, on_release=released.append)
    lease = each.open("192.0.2.1")
    ann, bob = ("acme", "ann"), ("acme", "bob")
    for user in (ann, ann, bob):
        lease.identify(*user)
    for key in ("192.0.2.1", ann, bob):
        assert not lease.is_shared(key)
        lease.add_shared(key)
        assert lease.is_shared(key)
    lease.forget(*ann)
    assert released == [], "the user is in another namespace"
    lease.forget(*ann)
    lease.forget(*ann)
    assert released == [ann]
    for _ in range(2):
        lease.close()
    assert released == [ann, "192.0.2.1", bob]
    lease.add_shared(ann)
    assert released[3:] == [ann]


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
def test_address_key_joins_addresses_of_one_customer(ip: str, key: str) -> None:
    assert address_key(ip) == key


def test_connect_rate_limits_each_address_and_the_total() -> None:
    rate = ConnectRate(per_second=4, per_second_per_ip=2)
    for _ in range(4):
        rate.check("192.0.2.1", 0)
    with pytest.raises(LimitError, match="this address") as refusal:
        rate.check("192.0.2.1", 0)
    assert refusal.value.code is ErrorCode.LIMIT_RATE
    assert refusal.value.retry_after_ms == 500
    for _ in range(4):
        rate.check("192.0.2.2", 0)
    with pytest.raises(LimitError, match="on this server"):
        rate.check("192.0.2.3", 0)
    rate.check("192.0.2.1", 1)


def test_connect_rate_of_0_means_no_limit() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=0)
    for _ in range(1000):
        rate.check("192.0.2.1", 0)
    assert rate.tracked_count() == 0


def test_connect_rate_bounds_its_table_of_addresses() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=1, max_tracked=100)
    for i in range(5000):
        rate.check(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 0)
        assert rate.tracked_count() <= 101
    for i in range(200):
        rate.check(f"172.16.0.{i}", 1000)
    assert rate.tracked_count() <= 101


def test_connect_rate_forgets_quiet_addresses() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=1, max_tracked=1000)
    for i in range(100):
        rate.check(f"172.16.0.{i}", 0)
    assert rate.tracked_count() == 100
    for i in range(50):
        rate.check(f"172.16.1.{i}", 1000)
    assert rate.tracked_count() == 50


def test_connect_rate_keeps_a_limited_address_while_there_is_room() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=1, max_tracked=1000)
    for _ in range(2):
        rate.check("192.0.2.1", 0)
    for i in range(500):
        rate.check(f"172.16.{i >> 8}.{i & 255}", 0)
    with pytest.raises(LimitError):
        rate.check("192.0.2.1", 0)


def test_connect_rate_keeps_an_address_that_keeps_trying() -> None:
    rate = ConnectRate(per_second=0, per_second_per_ip=1, max_tracked=10)
    for _ in range(2):
        rate.check("192.0.2.1", 0)
    for i in range(30):
        rate.check(f"172.16.0.{i}", 0)
        with pytest.raises(LimitError):
            rate.check("192.0.2.1", 0)
