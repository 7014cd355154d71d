"""The estimate of the server's clock."""

from client_sdk.connection.clock import ServerClock
from tests.kit.clock import START, ManualClock


def test_sample_is_taken_at_the_middle_of_the_round_trip() -> None:
    local = ManualClock()
    clock = ServerClock(local.time, local.monotonic)
    # A round trip of 200 ms, and a server that is 5 s ahead.
    clock.add_sample(int((START + 5.0 - 0.1) * 1000), 0.2)
    assert abs(clock.offset_ms - 5000) < 1
    assert abs(clock.age_seconds(int((START + 5.0) * 1000) - 750) - 0.75) < 0.01
    assert clock.monotonic() == local.monotonic()


def test_shortest_round_trip_wins_until_it_is_old() -> None:
    local = ManualClock()
    clock = ServerClock(local.time, local.monotonic)
    clock.add_sample(int(START * 1000) + 100, 0.01)
    best = clock.offset_ms
    clock.add_sample(int(START * 1000) + 900, 0.5)
    assert clock.offset_ms == best
    clock.add_sample(int(START * 1000) + 50, 0.001)
    assert clock.offset_ms < best
    local.advance(601)
    clock.add_sample(int(local.time() * 1000) + 900, 0.5)
    assert clock.offset_ms > 1000


def test_step_of_the_local_clock_does_not_change_an_age() -> None:
    local = ManualClock()
    wall_seconds = START
    clock = ServerClock(lambda: wall_seconds, local.monotonic)
    clock.add_sample(int(START * 1000), 0.0)
    wall_seconds += 3600
    local.advance(2)
    assert abs(clock.age_seconds(int(START * 1000)) - 2) < 0.01


def test_age_is_never_negative() -> None:
    local = ManualClock()
    clock = ServerClock(local.time, local.monotonic)
    assert clock.age_seconds(int(START * 1000) + 5000) == 0.0
