"""Delays grow exponentially and are spread over clients."""

import random

from client_sdk import BackoffConfig
from client_sdk.connection.backoff import DEFAULT_SPREAD_SECONDS, Backoff


def test_bound_doubles_up_to_the_most_seconds() -> None:
    config = BackoffConfig(least_seconds=0.1, first_seconds=1.0, most_seconds=5.0)
    longest = Backoff(config, lambda: 1.0)
    assert [longest.next_seconds() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    shortest = Backoff(config, lambda: 0.0)
    assert [shortest.next_seconds() for _ in range(3)] == [0.1, 0.1, 0.1]


def test_only_a_stable_connection_resets_the_delay() -> None:
    backoff = Backoff(BackoffConfig(first_seconds=1.0, stable_seconds=30.0), lambda: 1.0)
    backoff.next_seconds()
    backoff.reset_if_stable(29.9)
    assert backoff.next_seconds() == 2.0
    backoff.reset_if_stable(30.0)
    assert backoff.next_seconds() == 1.0


def test_bound_is_at_least_the_spread_that_the_server_names() -> None:
    backoff = Backoff(BackoffConfig(first_seconds=1.0, most_seconds=20.0), lambda: 1.0)
    backoff.set_connected(3.0)
    assert [backoff.next_seconds() for _ in range(4)] == [3.0, 3.0, 4.0, 8.0]
    backoff.set_connected(60.0)
    assert backoff.next_seconds() == 20.0


def test_delays_before_the_first_connection_are_short() -> None:
    backoff = Backoff(BackoffConfig(first_seconds=1.0), lambda: 1.0, start_seconds=3.0)
    assert [backoff.next_seconds() for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]
    backoff.set_connected(0.0)
    assert backoff.next_seconds() == 16.0


def test_backoff_survives_weeks_without_a_server() -> None:
    backoff = Backoff(BackoffConfig(), lambda: 1.0)
    assert [backoff.next_seconds() for _ in range(5000)][-1] == 20.0


def test_delays_of_500_clients_are_spread() -> None:
    draw = random.Random(6).random
    moments = []
    for _ in range(500):
        backoff = Backoff(BackoffConfig(), draw)
        backoff.set_connected(DEFAULT_SPREAD_SECONDS)
        moments.append(backoff.next_seconds())
    moments.sort()
    for first, moment in enumerate(moments):
        nearby = sum(1 for each in moments[first:] if each < moment + 0.1)
        assert nearby <= 25
