"""Seats: who of a node is in which session, and whom something that happens there concerns."""

from dataclasses import replace

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.membership import Memberships
from server.core.sessions.participants import Participants
from server.core.sessions.presence import Member

ROOM, JOB = ("acme", "room"), ("acme", "job:1")


def news(
    revision: int, what: SessionEventKind = SessionEventKind.LEFT, user_id: str = "ann"
) -> SessionEvent:
    return SessionEvent(ROOM, what, revision, 1000 + revision, user_id, 7)


def seated(*places: tuple[str, int]) -> Memberships:
    """Connections that know the room up to some revision; `ann1` is one of ann's."""
    seats = Memberships()
    for connection_id, revision in places:
        seats.add(connection_id, connection_id[:-1], ROOM, revision)
    return seats


def test_both_ways_of_looking_agree_and_nothing_is_left() -> None:
    seats = Memberships()
    for connection_id, key in (("ann1", ROOM), ("ann1", JOB), ("bob1", ROOM), ("bob1", ROOM)):
        seats.add(connection_id, connection_id[:-1], key)
    assert len(seats) == 3
    assert seats.of_connection("ann1") == (ROOM, JOB)
    assert ("bob1", ROOM) in seats
    assert ("bob1", JOB) not in seats
    assert ("eve1", ROOM) not in seats
    assert seats.remove("bob1", ROOM)
    assert not seats.remove("bob1", ROOM)
    assert (seats.is_empty(ROOM), seats.is_empty(("acme", "other"))) == (False, True)
    assert seats.remove_all("ann1") == (ROOM, JOB)
    assert seats.remove_all("ann1") == ()
    assert (len(seats), seats._sessions, seats._connections) == (0, {}, {})


def test_there_is_an_end_to_how_many_sessions_a_connection_may_be_in() -> None:
    seats = Memberships(max_per_connection=1)
    seats.check_limit("ann1", ROOM)
    seats.add("ann1", "ann", ROOM)
    seats.check_limit("ann1", ROOM)
    seats.check_limit("ann2", JOB)
    with pytest.raises(LimitError) as refused:
        seats.check_limit("ann1", JOB)
    assert refused.value.code is ErrorCode.LIMIT_TOPICS
    seats.remove("ann1", ROOM)
    seats.check_limit("ann1", JOB)


def test_who_came_later_is_not_told_and_is_not_sent_away() -> None:
    seats = seated(("ann1", 3), ("ann2", 8), ("bob1", 3), ("cid1", 8), ("dora1", 9))
    assert seats.excluded_from(news(8)) == {"ann1", "ann2", "cid1", "dora1"}
    assert seats.joined_before(news(8)) == ("ann1", "bob1")
    assert seats.joined_before(news(8), of_user=True) == ("ann1",)
    elsewhere = replace(news(8), key=JOB)
    assert (seats.excluded_from(elsewhere), seats.joined_before(elsewhere)) == (frozenset(), ())


def test_who_is_back_knows_what_its_node_has_heard() -> None:
    seats = seated(("bob1", 1))
    seats.update_revision(news(5))
    seats.update_revision(news(4))
    seats.add("ann1", "ann", ROOM)
    assert seats.joined_before(news(5)) == ("bob1",)
    assert seats.joined_before(news(6)) == ("bob1", "ann1")


ANN, BOB = Member("ann", 2, 1), Member("bob", 1, 2)
GATHERING = Participants(5, (ANN, BOB), metadata={"for": "all"})


def test_an_answer_holds_what_was_heard_while_it_was_on_its_way() -> None:
    heard = [
        news(4, user_id="ann"),
        news(5, SessionEventKind.JOINED, "bob"),
        news(6, SessionEventKind.JOINED, "cid"),
        news(7, SessionEventKind.KICKED, "ann"),
        news(8, SessionEventKind.LEFT, "nobody"),
    ]
    assert GATHERING.apply(heard[:2], "bob") is GATHERING
    later = GATHERING.apply(heard, "bob")
    assert later == Participants(8, (BOB, Member("cid", 1, 1006)), metadata={"for": "all"})


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (SessionEventKind.KICKED, ErrorCode.SESSION_NOT_JOINED),
        (SessionEventKind.CLOSED, ErrorCode.SESSION_CLOSED),
    ],
)
def test_who_was_sent_away_on_the_way_in_is_not_in(what: SessionEventKind, code: ErrorCode) -> None:
    assert GATHERING.apply([news(5, what, "bob")], "bob") is GATHERING, "that was before"
    with pytest.raises(RequestError) as refused:
        GATHERING.apply([news(6, what, "bob")], "bob")
    assert refused.value.code is code
