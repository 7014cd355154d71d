"""Leases expire without heartbeats, but not because Redis was down."""

from server.brokers.redis.connection.leases import Leases


def heartbeats(**nodes: str) -> dict[bytes, bytes]:
    return {node.encode(): beat.encode() for node, beat in nodes.items()}


def test_node_without_heartbeats_expires_after_a_lease() -> None:
    leases = Leases(lease_seconds=8.0)
    for second in range(0, 8, 2):
        assert leases.expired(heartbeats(one=f"{second}", two="7"), float(second)) == []
    assert leases.expired(heartbeats(one="8", two="7"), 8.0) == [(b"two", b"7")]


def test_heartbeat_at_the_last_moment_renews_the_lease() -> None:
    leases = Leases(lease_seconds=8.0)
    for second in range(0, 20, 2):
        assert (
            leases.expired(
                heartbeats(two="7" if second < 8 else "8" if second < 16 else "9"), second
            )
            == []
        )


def test_break_in_observation_restarts_leases() -> None:
    leases = Leases(lease_seconds=8.0)
    leases.expired(heartbeats(two="7"), 0.0)
    leases.expired(heartbeats(two="7"), 2.0)
    for second in (30.0, 32.0, 34.0, 36.0):
        assert leases.expired(heartbeats(two="7"), second) == [], "the lease restarts"
    assert leases.expired(heartbeats(two="7"), 38.0) == [(b"two", b"7")]


def test_dead_node_does_not_expire_again() -> None:
    leases = Leases(lease_seconds=8.0)
    for second in range(0, 40, 2):
        assert leases.expired(heartbeats(two="-1800000000000"), float(second)) == []


def test_node_missing_from_the_list_restarts_its_lease() -> None:
    leases = Leases(lease_seconds=8.0)
    for second in range(0, 6, 2):
        leases.expired(heartbeats(two="7"), float(second))
    leases.expired({}, 6.0)
    assert leases.expired(heartbeats(two="7"), 8.0) == []
