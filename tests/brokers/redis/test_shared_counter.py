"""The shared counter of one address or user: batches, grants and reports."""

import pytest

from client_sdk.contract import ErrorCode
from server.brokers.redis.limits.shared_counter import AcquireRequest, SharedCounter
from server.core.errors import LimitError
from server.core.limits.keys import ConnectionLimit, too_many_connections


def full_error() -> LimitError:
    return too_many_connections("192.0.2.1", 7)


def enqueue_batch(counter: SharedCounter, count: int) -> list[AcquireRequest]:
    """Put this many requests into the batch in flight."""
    for _ in range(count):
        counter.enqueue(AcquireRequest())
    batch = counter.next_batch()
    assert batch is not None
    counter.in_flight = batch
    return batch


def outcomes(batch: list[AcquireRequest]) -> list[ErrorCode | None]:
    found = [each.outcome.result() for each in batch]
    return [None if each is None else each.code for each in found]


@pytest.fixture
def counter() -> SharedCounter:
    return SharedCounter(ConnectionLimit(7, 5), 0.0)


async def test_request_during_a_batch_joins_the_next_one(
    counter: SharedCounter,
) -> None:
    first = enqueue_batch(counter, 2)
    late = AcquireRequest()
    counter.enqueue(late)
    assert counter.next_batch() is None
    counter.apply_reply(0, 1, 2, 0, retry=False, full_error=full_error)
    assert outcomes(first) == [None, ErrorCode.LIMIT_CONNECTIONS]
    assert (counter.held, counter.reported) == (1, 1)
    assert not counter.is_idle
    assert counter.next_batch() == [late]


async def test_cancelled_request_is_not_sent(counter: SharedCounter) -> None:
    cancelled, lost = AcquireRequest(), AcquireRequest()
    for each in (cancelled, lost):
        counter.enqueue(each)
    cancelled.outcome.cancel()
    assert counter.next_batch() == [lost]
    lost.outcome.cancel()
    counter.enqueue(lost)
    assert counter.next_batch() is None
    assert counter.is_idle


async def test_locally_granted_request_uses_up_a_grant(
    counter: SharedCounter,
) -> None:
    local, remote = batch = enqueue_batch(counter, 2)
    counter.grant(local)
    counter.apply_reply(0, 1, 2, 0, retry=False, full_error=full_error)
    assert outcomes(batch) == [None, ErrorCode.LIMIT_CONNECTIONS]
    assert (counter.held, counter.reported, remote.is_granted) == (1, 1, False)
    assert counter.next_batch() is None


async def test_grant_of_a_cancelled_request_is_reused_or_returned(
    counter: SharedCounter,
) -> None:
    batch = enqueue_batch(counter, 3)
    batch[0].outcome.cancel()
    counter.apply_reply(0, 2, 2, 100, retry=False, full_error=full_error)
    assert outcomes(batch[1:]) == [None, None]
    batch = enqueue_batch(counter, 1)
    batch[0].outcome.cancel()
    counter.apply_reply(2, 1, 1, 0, retry=False, full_error=full_error)
    assert (counter.held, counter.reported) == (2, 3)
    assert counter.next_batch() == [], "only the count must be reported"


async def test_retried_request_counts_one_attempt(counter: SharedCounter) -> None:
    batch = enqueue_batch(counter, 3)
    counter.apply_reply(0, 0, 2, 200, retry=True, full_error=full_error)
    assert batch[2].outcome.result() is not None
    assert enqueue_batch(counter, 1)[:2] == batch[:2]
    assert [each.is_attempt_counted for each in counter.in_flight or ()] == [True, True, False]
    counter.apply_reply(0, 1, 0, 200, retry=False, full_error=full_error)
    assert outcomes(batch) == [None, ErrorCode.LIMIT_CONNECTIONS, ErrorCode.LIMIT_RATE]


async def test_counter_without_connection_limit_reports_nothing() -> None:
    counter = SharedCounter(ConnectionLimit(0, 5), 0.0)
    batch = enqueue_batch(counter, 2)
    counter.apply_reply(0, 2, 2, 0, retry=False, full_error=full_error)
    assert outcomes(batch) == [None, None]
    counter.release()
    assert counter.next_batch() is None
    assert counter.is_idle
