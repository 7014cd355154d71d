"""Tests the limit on replacing dead workers."""

from server.workers.restarts import RestartLimit


def test_limit_refuses_too_many_deaths_within_the_time() -> None:
    limit = RestartLimit(deaths=3, seconds=10)
    assert limit.record_death(0)
    assert limit.record_death(5)
    assert not limit.record_death(10)


def test_limit_forgets_old_deaths() -> None:
    limit = RestartLimit(deaths=3, seconds=10)
    assert all(limit.record_death(now) for now in (0, 5.1, 10.2, 15.3, 20.4))
    assert not limit.record_death(20.4)
