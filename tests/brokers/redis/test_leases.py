"""Leases: a node is given up that gave no sign of life, and never because nobody could."""

from server.brokers.redis.connection.leases import Leases


def heartbeats(**nodes: str) -> dict[bytes, bytes]:
    return {node.encode(): sign.encode() for node, sign in nodes.items()}


def test_who_gives_no_sign_for_the_time_of_a_lease_is_given_up() -> None:
    leases = Leases(lease_seconds=8.0)
    for second in range(0, 8, 2):
        assert leases.expired(heartbeats(one=f"{second}", two="7"), float(second)) == []
    assert leases.expired(heartbeats(one="8", two="7"), 8.0) == [(b"two", b"7")]


def test_a_sign_at_the_last_moment_is_as_good_as_any() -> None:
    leases = Leases(lease_seconds=8.0)
    for second in range(0, 20, 2):
        assert (
            leases.expired(
                heartbeats(two="7" if second < 8 else "8" if second < 16 else "9"), second
            )
            == []
        )


def test_while_nothing_could_be_seen_nobody_is_given_up() -> None:
    leases = Leases(lease_seconds=8.0)
    leases.expired(heartbeats(two="7"), 0.0)
    leases.expired(heartbeats(two="7"), 2.0)
    for second in (30.0, 32.0, 34.0, 36.0):
        assert leases.expired(heartbeats(two="7"), second) == [], "its time begins anew"
    assert leases.expired(heartbeats(two="7"), 38.0) == [(b"two", b"7")]


def test_who_was_given_up_already_is_not_given_up_again() -> None:
    leases = Leases(lease_seconds=8.0)
    for second in range(0, 40, 2):
        assert leases.expired(heartbeats(two="-1800000000000"), float(second)) == []


def test_who_is_gone_from_the_list_begins_anew() -> None:
    leases = Leases(lease_seconds=8.0)
    for second in range(0, 6, 2):
        leases.expired(heartbeats(two="7"), float(second))
    leases.expired({}, 6.0)
    assert leases.expired(heartbeats(two="7"), 8.0) == []
