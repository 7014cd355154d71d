"""Memberships: the members on this node, and which events concern them."""

from dataclasses import replace

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.membership import Memberships
from server.core.sessions.participants import Participants
from server.core.sessions.presence import Member

ROOM, JOB = ("acme", "room"), ("acme", "job:1")


def event(
    revision: int, kind: SessionEventKind = SessionEventKind.LEFT, user_id: str = "ann"
) -> SessionEvent:
    return SessionEvent(ROOM, kind, revision, 1000 + revision, user_id, 7)


def members_at(*joined: tuple[str, int]) -> Memberships:
    """Connections in the room, each with its revision; `ann1` is one of ann's."""
    memberships = Memberships()
    for connection_id, revision in joined:
        memberships.add(connection_id, connection_id[:-1], ROOM, revision)
    return memberships


def test_memberships_agree_by_session_and_by_connection() -> None:
    memberships = Memberships()
    for connection_id, key in (("ann1", ROOM), ("ann1", JOB), ("bob1", ROOM), ("bob1", ROOM)):
        memberships.add(connection_id, connection_id[:-1], key)
    assert len(memberships) == 3
    assert memberships.of_connection("ann1") == (ROOM, JOB)
    assert ("bob1", ROOM) in memberships
    assert ("bob1", JOB) not in memberships
    assert ("eve1", ROOM) not in memberships
    assert memberships.remove("bob1", ROOM)
    assert not memberships.remove("bob1", ROOM)
    assert (memberships.is_empty(ROOM), memberships.is_empty(("acme", "other"))) == (False, True)
    assert memberships.remove_all("ann1") == (ROOM, JOB)
    assert memberships.remove_all("ann1") == ()
    assert (len(memberships), memberships._sessions, memberships._connections) == (0, {}, {})


def test_connection_may_join_a_limited_number_of_sessions() -> None:
    memberships = Memberships(max_per_connection=1)
    memberships.check_limit("ann1", ROOM)
    memberships.add("ann1", "ann", ROOM)
    memberships.check_limit("ann1", ROOM)
    memberships.check_limit("ann2", JOB)
    with pytest.raises(LimitError) as refusal:
        memberships.check_limit("ann1", JOB)
    assert refusal.value.code is ErrorCode.LIMIT_TOPICS
    memberships.remove("ann1", ROOM)
    memberships.check_limit("ann1", JOB)


def test_event_excludes_connections_that_joined_later() -> None:
    memberships = members_at(("ann1", 3), ("ann2", 8), ("bob1", 3), ("cid1", 8), ("dora1", 9))
    assert memberships.excluded_from(event(8)) == {"ann1", "ann2", "cid1", "dora1"}
    assert memberships.joined_before(event(8)) == ("ann1", "bob1")
    assert memberships.joined_before(event(8), of_user=True) == ("ann1",)
    elsewhere = replace(event(8), key=JOB)
    assert (memberships.excluded_from(elsewhere), memberships.joined_before(elsewhere)) == (
        frozenset(),
        (),
    )


def test_new_member_knows_the_newest_revision_of_its_node() -> None:
    memberships = members_at(("bob1", 1))
    memberships.update_revision(event(5))
    memberships.update_revision(event(4))
    memberships.add("ann1", "ann", ROOM)
    assert memberships.joined_before(event(5)) == ("bob1",)
    assert memberships.joined_before(event(6)) == ("bob1", "ann1")


ANN, BOB = Member("ann", 2, 1), Member("bob", 1, 2)
PARTICIPANTS = Participants(5, (ANN, BOB), metadata={"for": "all"})


def test_participants_apply_later_events() -> None:
    events = [
        event(4, user_id="ann"),
        event(5, SessionEventKind.JOINED, "bob"),
        event(6, SessionEventKind.JOINED, "cid"),
        event(7, SessionEventKind.KICKED, "ann"),
        event(8, SessionEventKind.LEFT, "nobody"),
    ]
    assert PARTICIPANTS.apply(events[:2], "bob") is PARTICIPANTS
    later = PARTICIPANTS.apply(events, "bob")
    assert later == Participants(8, (BOB, Member("cid", 1, 1006)), metadata={"for": "all"})


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (SessionEventKind.KICKED, ErrorCode.SESSION_NOT_JOINED),
        (SessionEventKind.CLOSED, ErrorCode.SESSION_CLOSED),
    ],
)
def test_kick_or_close_during_a_join_refuses_it(kind: SessionEventKind, code: ErrorCode) -> None:
    assert PARTICIPANTS.apply([event(5, kind, "bob")], "bob") is PARTICIPANTS, "the event is older"
    with pytest.raises(RequestError) as refusal:
        PARTICIPANTS.apply([event(6, kind, "bob")], "bob")
    assert refusal.value.code is code
