"""What a node asks for and says of an address or a user, one question at a time."""

import pytest

from client_sdk.contract import ErrorCode
from server.brokers.redis.limits.shared_counter import Ask, Tally
from server.core.errors import LimitError
from server.core.limits.keys import Quota, too_many_connections


def full() -> LimitError:
    return too_many_connections("192.0.2.1", 7)


def asked(tally: Tally, count: int) -> list[Ask]:
    """So many are in a question that is on its way."""
    for _ in range(count):
        tally.wait(Ask())
    asks = tally.question()
    assert asks is not None
    tally.asked = asks
    return asks


def outcomes(asks: list[Ask]) -> list[ErrorCode | None]:
    found = [each.answer.result() for each in asks]
    return [None if each is None else each.code for each in found]


@pytest.fixture
def tally() -> Tally:
    return Tally(Quota(7, 5), 0.0)


async def test_whoever_comes_while_a_question_is_on_its_way_is_in_the_next(tally: Tally) -> None:
    first = asked(tally, 2)
    late = Ask()
    tally.wait(late)
    assert tally.question() is None
    tally.heard(0, 1, 2, 0, again=False, full=full)
    assert outcomes(first) == [None, ErrorCode.LIMIT_CONNECTIONS]
    assert (tally.has, tally.told) == (1, 1)
    assert not tally.empty
    assert tally.question() == [late]


async def test_who_has_gone_is_not_asked_for(tally: Tally) -> None:
    gone, lost = Ask(), Ask()
    for each in (gone, lost):
        tally.wait(each)
    gone.answer.cancel()
    assert tally.question() == [lost]
    lost.answer.cancel()
    tally.wait(lost)
    assert tally.question() is None
    assert tally.empty


async def test_who_was_let_in_meanwhile_has_one_of_the_places_that_are_granted(
    tally: Tally,
) -> None:
    impatient, patient = asks = asked(tally, 2)
    tally.place(impatient)
    tally.heard(0, 1, 2, 0, again=False, full=full)
    assert outcomes(asks) == [None, ErrorCode.LIMIT_CONNECTIONS]
    assert (tally.has, tally.told, patient.placed) == (1, 1, False)
    assert tally.question() is None


async def test_what_was_granted_to_one_who_has_gone_goes_to_the_next_or_is_told_back(
    tally: Tally,
) -> None:
    asks = asked(tally, 3)
    asks[0].answer.cancel()
    tally.heard(0, 2, 2, 100, again=False, full=full)
    assert outcomes(asks[1:]) == [None, None]
    asks = asked(tally, 1)
    asks[0].answer.cancel()
    tally.heard(2, 1, 1, 0, again=False, full=full)
    assert (tally.has, tally.told) == (2, 3)
    assert tally.question() == [], "nothing is wanted, but what it has is to be said"


async def test_who_is_asked_for_again_has_made_one_attempt(tally: Tally) -> None:
    asks = asked(tally, 3)
    tally.heard(0, 0, 2, 200, again=True, full=full)
    assert asks[2].answer.result() is not None
    assert asked(tally, 1)[:2] == asks[:2]
    assert [each.attempted for each in tally.asked or ()] == [True, True, False]
    tally.heard(0, 1, 0, 200, again=False, full=full)
    assert outcomes(asks) == [None, ErrorCode.LIMIT_CONNECTIONS, ErrorCode.LIMIT_RATE]


async def test_where_only_attempts_are_limited_nothing_is_to_be_said_afterwards() -> None:
    tally = Tally(Quota(0, 5), 0.0)
    asks = asked(tally, 2)
    tally.heard(0, 2, 2, 0, again=False, full=full)
    assert outcomes(asks) == [None, None]
    tally.give()
    assert tally.question() is None
    assert tally.empty
