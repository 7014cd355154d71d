"""What a node asks for and says of an address or a user, one question at a time."""

import pytest

from client_sdk.contract import ErrorCode
from server.brokers.redis.limits.shared_counter import AcquireRequest, SharedCounter
from server.core.errors import LimitError
from server.core.limits.keys import ConnectionLimit, too_many_connections


def full_error() -> LimitError:
    return too_many_connections("192.0.2.1", 7)


def enqueue_batch(tally: SharedCounter, count: int) -> list[AcquireRequest]:
    """So many are in a question that is on its way."""
    for _ in range(count):
        tally.enqueue(AcquireRequest())
    asks = tally.next_batch()
    assert asks is not None
    tally.in_flight = asks
    return asks


def outcomes(asks: list[AcquireRequest]) -> list[ErrorCode | None]:
    found = [each.outcome.result() for each in asks]
    return [None if each is None else each.code for each in found]


@pytest.fixture
def tally() -> SharedCounter:
    return SharedCounter(ConnectionLimit(7, 5), 0.0)


async def test_whoever_comes_while_a_question_is_on_its_way_is_in_the_next(
    tally: SharedCounter,
) -> None:
    first = enqueue_batch(tally, 2)
    late = AcquireRequest()
    tally.enqueue(late)
    assert tally.next_batch() is None
    tally.apply_reply(0, 1, 2, 0, retry=False, full_error=full_error)
    assert outcomes(first) == [None, ErrorCode.LIMIT_CONNECTIONS]
    assert (tally.held, tally.reported) == (1, 1)
    assert not tally.is_idle
    assert tally.next_batch() == [late]


async def test_who_has_gone_is_not_asked_for(tally: SharedCounter) -> None:
    gone, lost = AcquireRequest(), AcquireRequest()
    for each in (gone, lost):
        tally.enqueue(each)
    gone.outcome.cancel()
    assert tally.next_batch() == [lost]
    lost.outcome.cancel()
    tally.enqueue(lost)
    assert tally.next_batch() is None
    assert tally.is_idle


async def test_who_was_let_in_meanwhile_has_one_of_the_places_that_are_granted(
    tally: SharedCounter,
) -> None:
    impatient, patient = asks = enqueue_batch(tally, 2)
    tally.grant(impatient)
    tally.apply_reply(0, 1, 2, 0, retry=False, full_error=full_error)
    assert outcomes(asks) == [None, ErrorCode.LIMIT_CONNECTIONS]
    assert (tally.held, tally.reported, patient.is_granted) == (1, 1, False)
    assert tally.next_batch() is None


async def test_what_was_granted_to_one_who_has_gone_goes_to_the_next_or_is_told_back(
    tally: SharedCounter,
) -> None:
    asks = enqueue_batch(tally, 3)
    asks[0].outcome.cancel()
    tally.apply_reply(0, 2, 2, 100, retry=False, full_error=full_error)
    assert outcomes(asks[1:]) == [None, None]
    asks = enqueue_batch(tally, 1)
    asks[0].outcome.cancel()
    tally.apply_reply(2, 1, 1, 0, retry=False, full_error=full_error)
    assert (tally.held, tally.reported) == (2, 3)
    assert tally.next_batch() == [], "nothing is wanted, but what it has is to be said"


async def test_who_is_asked_for_again_has_made_one_attempt(tally: SharedCounter) -> None:
    asks = enqueue_batch(tally, 3)
    tally.apply_reply(0, 0, 2, 200, retry=True, full_error=full_error)
    assert asks[2].outcome.result() is not None
    assert enqueue_batch(tally, 1)[:2] == asks[:2]
    assert [each.is_attempt_counted for each in tally.in_flight or ()] == [True, True, False]
    tally.apply_reply(0, 1, 0, 200, retry=False, full_error=full_error)
    assert outcomes(asks) == [None, ErrorCode.LIMIT_CONNECTIONS, ErrorCode.LIMIT_RATE]


async def test_where_only_attempts_are_limited_nothing_is_to_be_said_afterwards() -> None:
    tally = SharedCounter(ConnectionLimit(0, 5), 0.0)
    asks = enqueue_batch(tally, 2)
    tally.apply_reply(0, 2, 2, 0, retry=False, full_error=full_error)
    assert outcomes(asks) == [None, None]
    tally.release()
    assert tally.next_batch() is None
    assert tally.is_idle
