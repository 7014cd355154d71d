"""Sessions: made by the first who joins, kept apart by org, forgotten in time."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError, LimitError, RequestError
from server.core.sessions.presence import PresenceJoin, PresenceLeave
from server.core.sessions.records import SessionJoin, SessionKind, SessionRules, kind_of
from server.core.sessions.registry import Sessions

NOW = 1000.0
NOW_MS = 1_800_000_000_000
RULES = SessionRules(grace_seconds=10.0, retention_seconds=60.0)
EMPTY = {"sessions": 0, "empty": 0, "participants": 0, "memberships": 0}


def join(
    sessions: Sessions, connection_id: str, session_id: str = "room", org: str = "acme"
) -> SessionJoin:
    """A connection joins; `ann1` is one of ann's."""
    return sessions.join(connection_id, org, connection_id[:-1], session_id, NOW_MS)


def leave(
    sessions: Sessions, connection_id: str, session_id: str = "room", now: float = NOW
) -> PresenceLeave | None:
    """It goes out of one by itself."""
    left = sessions.leave(connection_id, "acme", session_id, now)
    return None if left is None else left.leave


def lose(
    sessions: Sessions, connection_id: str, session_id: str = "room", now: float = NOW
) -> PresenceLeave | None:
    """It is cut off."""
    left = sessions.disconnect(connection_id, "acme", session_id, now)
    return None if left is None else left.leave


def kick(sessions: Sessions, user_id: str, session_id: str = "room") -> PresenceLeave | None:
    """A user is sent away."""
    left = sessions.kick("acme", session_id, user_id, NOW)
    return None if left is None else left.leave


def left_over(sessions: Sessions) -> list[str]:
    """What of its memory is not empty."""
    kept = {name: value for name, value in vars(sessions).items() if name != "_rules"}
    return [
        name for name, value in kept.items() if (len(value) if hasattr(value, "__len__") else value)
    ]


@pytest.mark.parametrize(
    ("session_id", "kind"),
    [
        ("job:42", SessionKind.JOB),
        ("job::", SessionKind.JOB),
        ("thread:7", SessionKind.THREAD),
        ("room", SessionKind.SESSION),
        ("job", SessionKind.SESSION),
        ("jobs:1", SessionKind.SESSION),
        ("Job:1", SessionKind.SESSION),
        ("session:job:1", SessionKind.SESSION),
    ],
)
def test_an_id_says_what_kind_of_session_it_is(session_id: str, kind: SessionKind) -> None:
    assert kind_of(session_id) is kind


@pytest.mark.behaviour("D22")
@pytest.mark.parametrize(
    ("session_id", "reason"),
    [
        ("job:", "job:ID"),
        ("thread:", "thread:ID"),
        ("", "1 to 128"),
        ("job:1\n", "1 to 128"),
        (":job", "1 to 128"),
        ("j" * 129, "1 to 128"),
        ("job:é", "1 to 128"),
    ],
)
def test_an_id_that_names_nothing_is_refused_with_the_reason(session_id: str, reason: str) -> None:
    sessions = Sessions(RULES)
    with pytest.raises(RequestError, match=reason) as refused:
        join(sessions, "ann1", session_id)
    assert refused.value.code is ErrorCode.REQUEST_INVALID
    assert left_over(sessions) == []


@pytest.mark.behaviour("D20", "D23")
def test_the_first_to_join_a_job_makes_it_and_says_what_it_is_for() -> None:
    sessions = Sessions(RULES)
    about: dict[str, object] = {"name": "backtest"}
    first = sessions.join("ann1", "acme", "ann", "job:42", NOW_MS, about)
    about["name"] = "another"
    second = sessions.join("bob1", "acme", "bob", "job:42", NOW_MS + 5, {"name": "mine"})
    assert (first.created, first.join) == (True, PresenceJoin("ann", 1, announce=True))
    assert (second.created, second.join) == (False, PresenceJoin("bob", 2, announce=True))
    record = sessions.get("acme", "job:42")
    assert record is first.record is second.record
    assert record.metadata == {"name": "backtest"}
    assert (record.kind, record.created_by, record.created_at_ms) == ("job", "ann", NOW_MS)
    assert "backtest" not in repr(record)
    with pytest.raises(TypeError):
        record.metadata["name"] = "a third"  # type: ignore[index]


@pytest.mark.behaviour("D24", "E6")
def test_leaving_a_job_is_counted_and_leaves_the_others_in_it() -> None:
    sessions = Sessions(RULES)
    for who in ("ann1", "bob1"):
        join(sessions, who, "job:42")
    departure = leave(sessions, "ann1", "job:42")
    assert departure == PresenceLeave("ann", 1, announce=True, connections=("ann1",))
    assert sessions.participant_count("acme", "job:42") == 1
    assert leave(sessions, "ann1", "job:42") is None, "once is enough"
    assert leave(sessions, "ann1", "nowhere") is None


def test_joining_twice_changes_nothing() -> None:
    sessions = Sessions(RULES)
    join(sessions, "ann1")
    before = sessions.stats()
    again = join(sessions, "ann1")
    assert (again.created, again.join) == (False, PresenceJoin("ann", 1, announce=False))
    assert sessions.stats() == before


@pytest.mark.behaviour("E7", "E8")
def test_one_that_does_not_exist_is_a_clear_error_and_counts_nobody() -> None:
    sessions = Sessions(RULES)
    join(sessions, "ann1")
    assert sessions.participant_count("acme", "nowhere") == 0
    assert sessions.get("acme", "nowhere") is None
    with pytest.raises(RequestError, match="no such session") as unknown:
        kick(sessions, "ann", "nowhere")
    assert unknown.value.code is ErrorCode.SESSION_NOT_JOINED


@pytest.mark.behaviour("E9")
def test_the_same_id_in_two_orgs_is_two_sessions() -> None:
    sessions = Sessions(RULES)
    ours = join(sessions, "ann1", org="acme").record
    theirs = join(sessions, "ann2", org="other").record
    assert ours is not theirs
    assert [each.presence.participant_count for each in (ours, theirs)] == [1, 1]
    assert sessions.sessions_of("acme") == (ours,)
    assert sessions.sessions_of("nobody's") == ()
    assert leave(sessions, "ann2") is None, "it is in the other one"
    sessions.close("other", "room", NOW)
    assert not ours.closed


def test_a_cut_connection_is_out_at_once_and_its_user_after_the_grace_time() -> None:
    sessions = Sessions(RULES)
    for session_id in ("room", "job:1"):
        join(sessions, "ann1", session_id)
        join(sessions, "bob1", session_id)
        departure = lose(sessions, "ann1", session_id)
        assert departure == PresenceLeave("ann", 2, announce=False, connections=("ann1",))
        assert lose(sessions, "ann1", session_id) is None
    join(sessions, "ann2", "job:1")
    assert sessions.expire_grace(NOW + 9.9) == []
    [left] = sessions.expire_grace(NOW + 10.0)
    assert left.record.session_id == "room"
    assert left.leave == PresenceLeave("ann", 1, announce=True)
    assert sessions.expire_grace(NOW + 99.0) == []


def test_those_of_one_session_are_given_up_one_after_the_other() -> None:
    sessions = Sessions(RULES)
    for number, who in enumerate(("ann1", "bob1", "cid1")):
        join(sessions, who)
        lose(sessions, who, now=NOW + number)
    given_up = [
        [left.leave.user_id for left in sessions.expire_grace(NOW + 10.0 + number)]
        for number in range(4)
    ]
    assert given_up == [["ann"], ["bob"], ["cid"], []]


def test_who_comes_back_does_not_keep_another_from_being_given_up() -> None:
    sessions = Sessions(RULES)
    for number, who in enumerate(("ann1", "bob1")):
        join(sessions, who)
        lose(sessions, who, now=NOW + number)
    join(sessions, "ann2")
    assert sessions.expire_grace(NOW + 10.0) == []
    assert [left.leave.user_id for left in sessions.expire_grace(NOW + 11.0)] == ["bob"]


def test_nobody_is_waited_for_in_a_session_that_was_closed_and_forgotten() -> None:
    sessions = Sessions(replace(RULES, retention_seconds=1.0))
    join(sessions, "ann1")
    lose(sessions, "ann1")
    sessions.close("acme", "room", NOW)
    assert len(sessions.pop_expired(NOW + 1.0)) == 1
    assert sessions.expire_grace(NOW + 10.0) == []
    assert left_over(sessions) == []


def test_a_kick_is_from_one_session_and_with_every_connection() -> None:
    sessions = Sessions(RULES)
    for who in ("ann1", "ann2", "bob1"):
        join(sessions, who)
    join(sessions, "ann1", "job:1")
    kicked = kick(sessions, "ann")
    assert kicked == PresenceLeave("ann", 1, announce=True, connections=("ann1", "ann2"))
    assert kick(sessions, "ann") is None
    assert sessions.participant_count("acme", "job:1") == 1


def test_a_closed_session_is_out_of_reach_until_its_id_is_free_again() -> None:
    sessions = Sessions(RULES)
    for who in ("ann1", "bob1"):
        join(sessions, who)
    lose(sessions, "bob1")
    assert sessions.close("acme", "room", NOW) == ("ann1",)
    assert sessions.expire_grace(NOW + 30.0) == []
    for refuse in (
        lambda: join(sessions, "ann1"),
        lambda: kick(sessions, "ann"),
        lambda: sessions.close("acme", "room", NOW),
        lambda: sessions.create("acme", "room", "ann", NOW, NOW_MS),
    ):
        with pytest.raises(RequestError) as refused:
            refuse()
        assert refused.value.code is ErrorCode.SESSION_CLOSED
    assert leave(sessions, "ann1") is None
    assert [record.closed for record in sessions.pop_expired(NOW + 60.0)] == [True]
    assert join(sessions, "ann1").created


def test_an_empty_session_stays_for_its_retention_time_and_is_handed_out_once() -> None:
    sessions = Sessions(RULES)
    record = join(sessions, "ann1").record
    assert sessions.pop_expired(NOW + 999.0) == [], "it is not empty"
    leave(sessions, "ann1", now=NOW + 1000.0)
    assert sessions.pop_expired(NOW + 1059.9) == []
    assert not join(sessions, "ann1").created
    leave(sessions, "ann1", now=NOW + 1050.0)
    assert sessions.pop_expired(NOW + 1109.9) == []
    assert sessions.pop_expired(NOW + 1110.0) == [record]
    assert sessions.pop_expired(NOW + 9999.0) == []
    assert left_over(sessions) == []
    assert join(sessions, "ann1").record is not record


def test_the_retention_time_begins_when_the_grace_time_of_the_last_is_over() -> None:
    sessions = Sessions(RULES)
    join(sessions, "ann1")
    lose(sessions, "ann1")
    assert sessions.pop_expired(NOW + 69.0) == []
    sessions.expire_grace(NOW + 70.0)
    assert sessions.pop_expired(NOW + 129.9) == []
    assert len(sessions.pop_expired(NOW + 130.0)) == 1


def test_one_made_ahead_waits_for_its_first_participant() -> None:
    sessions = Sessions(replace(RULES, join_creates=False))
    with pytest.raises(RequestError, match="no such session"):
        join(sessions, "ann1")
    made, created = sessions.create("acme", "room", "backend", NOW, NOW_MS, {"for": "all"})
    assert created
    assert sessions.create("acme", "room", "eve", NOW, NOW_MS) == (made, False)
    joined = join(sessions, "ann1")
    assert (joined.record, joined.created, made.created_by) == (made, False, "backend")
    leave(sessions, "ann1")
    sessions.create("acme", "unused", "backend", NOW, NOW_MS)
    assert len(sessions.pop_expired(NOW + 60.0)) == 2


def refusal(sessions: Sessions, connection_id: str, session_id: str) -> FloorcastError:
    before = sessions.stats()
    with pytest.raises(LimitError) as refused:
        join(sessions, connection_id, session_id)
    assert sessions.stats() == before
    return refused.value


def test_there_is_an_end_to_how_many_sessions_there_may_be() -> None:
    sessions = Sessions(replace(RULES, max_sessions=2))
    join(sessions, "ann1", "a")
    join(sessions, "ann1", "b")
    assert refusal(sessions, "ann1", "c").code is ErrorCode.SERVER_OVERLOADED
    assert join(sessions, "bob1", "b").join.announce, "those that are there stay open"
    leave(sessions, "ann1", "a")
    assert refusal(sessions, "ann1", "c").code is ErrorCode.SERVER_OVERLOADED
    sessions.pop_expired(NOW + 60.0)
    assert join(sessions, "ann1", "c").created


def test_one_user_cannot_take_every_place_by_joining_and_leaving() -> None:
    sessions = Sessions(replace(RULES, max_sessions_per_user=2))
    for session_id in ("a", "b"):
        join(sessions, "ann1", session_id)
        leave(sessions, "ann1", session_id)
    assert refusal(sessions, "ann1", "c").code is ErrorCode.LIMIT_TOPICS
    assert join(sessions, "bob1", "c").created
    assert not join(sessions, "ann1", "c").created
    sessions.pop_expired(NOW + 60.0)
    assert join(sessions, "ann1", "a").created


def test_a_full_session_refuses_and_keeps_no_trace() -> None:
    sessions = Sessions(replace(RULES, max_participants=1))
    join(sessions, "ann1")
    assert refusal(sessions, "bob1", "room").code is ErrorCode.LIMIT_CONNECTIONS


@pytest.mark.behaviour("D25", "D26", "D27")
def test_the_statistics_keep_their_shape_and_follow_what_happens() -> None:
    sessions = Sessions(RULES)
    seen = [sessions.stats()]
    for who, session_id in (("ann1", "room"), ("ann2", "room"), ("bob1", "job:1")):
        join(sessions, who, session_id)
        seen.append(sessions.stats())
    lose(sessions, "ann1")
    kick(sessions, "ann")
    seen.append(sessions.stats())
    sessions.close("acme", "job:1", NOW)
    seen.append(sessions.stats())
    sessions.pop_expired(NOW + 60.0)
    seen.append(sessions.stats())
    assert [tuple(each.values()) for each in seen] == [
        (0, 0, 0, 0),
        (1, 0, 1, 1),
        (1, 0, 1, 2),
        (2, 0, 2, 3),
        (2, 1, 1, 1),
        (2, 2, 0, 0),
        (0, 0, 0, 0),
    ]
    assert {tuple(each) for each in seen} == {tuple(EMPTY)}


class Unwalked(dict[Any, Any]):
    """A dict that may be asked, and not be walked."""

    def __iter__(self) -> Any:
        raise AssertionError("walked")

    keys = values = items = __iter__


def test_with_ten_thousand_sessions_and_users_no_operation_walks_them() -> None:
    sessions = Sessions(RULES)
    for number in range(10_000):
        join(sessions, f"user{number}x")
        join(sessions, "ann1", f"job:{number}")
    record = sessions.get_open("acme", "job:77")
    crowd = join(sessions, "ann1").record.presence
    for index, name in (
        *((sessions, name) for name in ("_orgs", "_created_counts")),
        *((crowd, name) for name in ("_owners", "_users")),
    ):
        setattr(index, name, Unwalked(getattr(index, name)))
    sessions._orgs["acme"] = Unwalked(sessions._orgs["acme"])
    join(sessions, "bob1", "job:77")
    kick(sessions, "ann", "job:77")
    assert leave(sessions, "bob1", "job:77") == PresenceLeave("bob", 0, True, ("bob1",))
    assert lose(sessions, "user7x") is not None
    assert leave(sessions, "user8x") is not None
    [left] = sessions.expire_grace(NOW + 10.0)
    assert left.leave.participant_count == 9_999
    assert sessions.pop_expired(NOW + 60.0) == [record]
    assert sessions.stats() == {
        "sessions": 10_000,
        "empty": 0,
        "participants": 9_999 + 9_999,
        "memberships": 9_999 + 9_999,
    }


@dataclass
class Room:
    """What the model knows of one session."""

    joined: set[str] = field(default_factory=set)
    lost: dict[str, float] = field(default_factory=dict)
    closed: bool = False
    empty_since: float | None = None

    def users(self) -> set[str]:
        return {each[:-1] for each in self.joined} | set(self.lost)


connections = st.sampled_from(["ann1", "ann2", "bob1", "cid1"])
ids = st.sampled_from(["room", "job:1"])
orgs = st.sampled_from(["acme", "other"])
GRACE, RETENTION, MOST = 4.0, 8.0, 3


class Registry(RuleBasedStateMachine):
    """Any sequence of operations, beside plain rooms that are looked through."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Sessions(SessionRules(GRACE, RETENTION, max_sessions=MOST))
        self.now = 0.0
        self.rooms: dict[tuple[str, str], Room] = {}

    def rooms_of(self, who: str) -> set[tuple[str, str]]:
        return {key for key, room in self.rooms.items() if who in room.joined}

    def out(self, key: tuple[str, str], *who: str, cut: bool = False) -> None:
        room = self.rooms[key]
        room.joined -= set(who)
        for user in {each[:-1] for each in who} - room.users():
            if cut:
                room.lost[user] = self.now
        if not room.users():
            room.empty_since = self.now

    @rule(who=connections, org=orgs, session_id=ids)
    def join(self, who: str, org: str, session_id: str) -> None:
        key = (org, session_id)
        room = self.rooms.get(key)
        if (room is None and len(self.rooms) == MOST) or (room is not None and room.closed):
            with pytest.raises(FloorcastError):
                join(self.real, who, session_id, org)
            return
        new = room is None or who[:-1] not in room.users()
        joined = join(self.real, who, session_id, org)
        assert joined.created == (room is None)
        assert joined.join.announce == new
        room = self.rooms.setdefault(key, Room())
        room.joined.add(who)
        room.lost.pop(who[:-1], None)
        room.empty_since = None

    @rule(who=connections, org=orgs, session_id=ids, cut=st.booleans())
    def go(self, who: str, org: str, session_id: str, cut: bool) -> None:
        key = (org, session_id)
        was_in = key in self.rooms_of(who)
        left = (self.real.disconnect if cut else self.real.leave)(who, *key, self.now)
        assert (left is not None) == was_in
        if left is not None:
            self.out(key, who, cut=cut)
            assert left.record.key == key
            assert left.leave.announce == (who[:-1] not in self.rooms[key].users())

    @precondition(lambda self: self.rooms)
    @rule(data=st.data(), user=st.sampled_from(["ann", "bob"]), whole=st.booleans())
    def turn_out(self, data: st.DataObject, user: str, whole: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.rooms)))
        room = self.rooms[key]
        mine = {each for each in room.joined if whole or each[:-1] == user}
        if room.closed:
            with pytest.raises(RequestError):
                self.real.close(*key, self.now)
            return
        if whole:
            assert set(self.real.close(*key, self.now)) == mine
            room.closed, room.lost = True, {}
            self.out(key, *mine)
            room.empty_since = self.now
            return
        was_in = user in room.users()
        left = self.real.kick(*key, user, self.now)
        assert (left is not None) == was_in
        if left is not None:
            assert set(left.leave.connections) == mine
            room.lost.pop(user, None)
            self.out(key, *mine)

    @rule(seconds=st.sampled_from([1.0, 4.0, 8.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        for left in self.real.expire_grace(self.now):
            room = self.rooms[left.record.key]
            assert room.lost.pop(left.leave.user_id) <= self.now - GRACE
            assert left.leave.announce
            self.out(left.record.key)
        for record in self.real.pop_expired(self.now):
            gone = self.rooms.pop(record.key)
            assert gone.empty_since is not None
            assert gone.empty_since <= self.now - RETENTION
        # A deadline that is set in the moment that was looked at last waits for a next look.
        for room in self.rooms.values():
            assert all(when > self.now - GRACE - 1.0 for when in room.lost.values())
            assert room.empty_since is None or room.empty_since > self.now - RETENTION - 1.0

    @invariant()
    def indexes_agree(self) -> None:
        for org in ("acme", "other"):
            records = self.real.sessions_of(org)
            assert {each.key for each in records} == {key for key in self.rooms if key[0] == org}
        for key, room in self.rooms.items():
            record = self.real.get(*key)
            assert record is not None
            assert record.closed == room.closed
            assert {each.user_id for each in record.presence.members()} == room.users()
            assert record.presence.connection_count == len(room.joined)
            for who in ("ann1", "ann2", "bob1", "cid1"):
                assert (record.presence.user_of(who) is not None) == (who in room.joined)
        rooms = self.rooms.values()
        assert self.real.stats() == {
            "sessions": len(rooms),
            "empty": sum(not room.users() for room in rooms),
            "participants": sum(len(room.users()) for room in rooms),
            "memberships": sum(len(room.joined) for room in rooms),
        }
        assert len(self.real) == len(rooms)

    def teardown(self) -> None:
        """Everybody goes, and in time nothing is left."""
        for who in ("ann1", "ann2", "bob1", "cid1"):
            for org, session_id in self.rooms_of(who):
                self.go(who, org, session_id, cut=who == "ann1")
        for _ in range(3):
            self.time(RETENTION)
        assert left_over(self.real) == []


TestRegistry = pytest.mark.behaviour("D44", "D45")(Registry.TestCase)
TestRegistry.settings = settings(max_examples=150, stateful_step_count=40)
