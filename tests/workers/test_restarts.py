"""When a worker that died is replaced, and when enough have died."""

from server.workers.restarts import RestartLimit


def test_the_last_of_so_many_deaths_within_the_time_is_one_too_many() -> None:
    limit = RestartLimit(deaths=3, seconds=10)
    assert limit.record_death(0)
    assert limit.record_death(5)
    assert not limit.record_death(10)


def test_deaths_that_lie_further_apart_are_no_reason_to_give_up() -> None:
    limit = RestartLimit(deaths=3, seconds=10)
    assert all(limit.record_death(now) for now in (0, 5.1, 10.2, 15.3, 20.4))
    assert not limit.record_death(20.4)
