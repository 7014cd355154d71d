"""Time budgets: a burst and a share, and the CPU time of connections that seem expensive."""

from server.core.limits.time_budget import BUDGET_SECONDS, TimeBudget


def test_budget_is_spent_by_a_burst_and_paid_back() -> None:
    budget = TimeBudget(0.0)
    now = 0.0
    for _ in range(5):
        assert not budget.is_spent(now)
        budget.spend(now, now + 0.00045)
        now += 0.00045
    assert budget.is_spent(now)
    # 1% of the time is paid back: 0.25 ms take 25 ms.
    assert budget.is_spent(now + 0.02)
    assert not budget.is_spent(now + 0.03)


def test_steady_share_is_never_spent() -> None:
    budget = TimeBudget(0.0)
    for step in range(1000):
        now = step * 0.1
        assert not budget.is_spent(now)
        budget.spend(now, now + 0.0004)


def test_long_packet_is_charged_by_its_cpu_time_from_then_on() -> None:
    budget = TimeBudget(0.0)
    budget.spend(0.0, 0.05)
    # Perhaps the process only waited for its core.
    assert not budget.is_spent(0.05)
    assert budget.is_suspect
    budget.spend(0.05, 0.1, 0.0001)
    assert not budget.is_spent(0.1)
    budget.spend(0.1, 0.15, 0.05)
    assert budget.is_spent(0.15)


def test_suspicion_ends_after_cheap_packets() -> None:
    budget = TimeBudget(0.0)
    budget.spend(0.0, 0.05)
    suspected = []
    for _ in range(33):
        suspected.append(budget.is_suspect)
        budget.spend(1.0, 1.0, 0.0)
    assert suspected == [True] * 32 + [False]


def test_stopped_connection_is_forgiven_within_seconds() -> None:
    budget = TimeBudget(0.0)
    for _ in range(100):
        budget.spend(0.0, 0.0, 10.0)
    assert budget.is_spent(1.9)
    assert not budget.is_spent(2.1)
    assert BUDGET_SECONDS < 0.01
