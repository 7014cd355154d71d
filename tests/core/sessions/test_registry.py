"""Sessions: created by the first join, separate by org, removed after their retention."""

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
    """A connection leaves deliberately."""
    left = sessions.leave(connection_id, "acme", session_id, now)
    return None if left is None else left.leave


def disconnect(
    sessions: Sessions, connection_id: str, session_id: str = "room", now: float = NOW
) -> PresenceLeave | None:
    """A connection is lost."""
    left = sessions.disconnect(connection_id, "acme", session_id, now)
    return None if left is None else left.leave


def kick(sessions: Sessions, user_id: str, session_id: str = "room") -> PresenceLeave | None:
    """A user is kicked."""
    left = sessions.kick("acme", session_id, user_id, NOW)
    return None if left is None else left.leave


def left_over(sessions: Sessions) -> list[str]:
    """The names of its attributes that are not empty."""
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
def test_session_id_names_its_kind(session_id: str, kind: SessionKind) -> None:
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
def test_invalid_session_id_is_refused_with_the_reason(session_id: str, reason: str) -> None:
    sessions = Sessions(RULES)
    with pytest.raises(RequestError, match=reason) as refused:
        join(sessions, "ann1", session_id)
    assert refused.value.code is ErrorCode.REQUEST_INVALID
    assert left_over(sessions) == []


@pytest.mark.behaviour("D20", "D23")
def test_first_join_creates_the_job_with_its_metadata() -> None:
    sessions = Sessions(RULES)
    metadata: dict[str, object] = {"name": "backtest"}
    first = sessions.join("ann1", "acme", "ann", "job:42", NOW_MS, metadata)
    metadata["name"] = "another"
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
def test_leave_removes_one_participant_of_a_job() -> None:
    sessions = Sessions(RULES)
    for who in ("ann1", "bob1"):
        join(sessions, who, "job:42")
    presence_leave = leave(sessions, "ann1", "job:42")
    assert presence_leave == PresenceLeave("ann", 1, announce=True, connections=("ann1",))
    assert sessions.participant_count("acme", "job:42") == 1
    assert leave(sessions, "ann1", "job:42") is None, "the second time is a no-op"
    assert leave(sessions, "ann1", "nowhere") is None


def test_joining_twice_changes_nothing() -> None:
    sessions = Sessions(RULES)
    join(sessions, "ann1")
    before = sessions.stats()
    again = join(sessions, "ann1")
    assert (again.created, again.join) == (False, PresenceJoin("ann", 1, announce=False))
    assert sessions.stats() == before


@pytest.mark.behaviour("E7", "E8")
def test_unknown_session_is_refused_and_has_no_participants() -> None:
    sessions = Sessions(RULES)
    join(sessions, "ann1")
    assert sessions.participant_count("acme", "nowhere") == 0
    assert sessions.get("acme", "nowhere") is None
    with pytest.raises(RequestError, match="no such session") as unknown:
        kick(sessions, "ann", "nowhere")
    assert unknown.value.code is ErrorCode.SESSION_NOT_JOINED


@pytest.mark.behaviour("E9")
def test_same_id_in_two_orgs_is_two_sessions() -> None:
    sessions = Sessions(RULES)
    ours = join(sessions, "ann1", org="acme").record
    theirs = join(sessions, "ann2", org="other").record
    assert ours is not theirs
    assert [each.presence.participant_count for each in (ours, theirs)] == [1, 1]
    assert sessions.sessions_of("acme") == (ours,)
    assert sessions.sessions_of("nobody's") == ()
    assert leave(sessions, "ann2") is None, "the connection is in the other org"
    sessions.close("other", "room", NOW)
    assert not ours.closed


def test_lost_user_leaves_after_the_grace_period() -> None:
    sessions = Sessions(RULES)
    for session_id in ("room", "job:1"):
        join(sessions, "ann1", session_id)
        join(sessions, "bob1", session_id)
        presence_leave = disconnect(sessions, "ann1", session_id)
        assert presence_leave == PresenceLeave("ann", 2, announce=False, connections=("ann1",))
        assert disconnect(sessions, "ann1", session_id) is None
    join(sessions, "ann2", "job:1")
    assert sessions.expire_grace(NOW + 9.9) == []
    [left] = sessions.expire_grace(NOW + 10.0)
    assert left.record.session_id == "room"
    assert left.leave == PresenceLeave("ann", 1, announce=True)
    assert sessions.expire_grace(NOW + 99.0) == []


def test_grace_periods_of_one_session_end_one_by_one() -> None:
    sessions = Sessions(RULES)
    for number, who in enumerate(("ann1", "bob1", "cid1")):
        join(sessions, who)
        disconnect(sessions, who, now=NOW + number)
    expired = [
        [left.leave.user_id for left in sessions.expire_grace(NOW + 10.0 + number)]
        for number in range(4)
    ]
    assert expired == [["ann"], ["bob"], ["cid"], []]


def test_returning_user_does_not_extend_another_grace_period() -> None:
    sessions = Sessions(RULES)
    for number, who in enumerate(("ann1", "bob1")):
        join(sessions, who)
        disconnect(sessions, who, now=NOW + number)
    join(sessions, "ann2")
    assert sessions.expire_grace(NOW + 10.0) == []
    assert [left.leave.user_id for left in sessions.expire_grace(NOW + 11.0)] == ["bob"]


def test_closed_session_ends_its_grace_periods() -> None:
    sessions = Sessions(replace(RULES, retention_seconds=1.0))
    join(sessions, "ann1")
    disconnect(sessions, "ann1")
    sessions.close("acme", "room", NOW)
    assert len(sessions.pop_expired(NOW + 1.0)) == 1
    assert sessions.expire_grace(NOW + 10.0) == []
    assert left_over(sessions) == []


def test_kick_removes_every_connection_from_one_session() -> None:
    sessions = Sessions(RULES)
    for who in ("ann1", "ann2", "bob1"):
        join(sessions, who)
    join(sessions, "ann1", "job:1")
    kicked = kick(sessions, "ann")
    assert kicked == PresenceLeave("ann", 1, announce=True, connections=("ann1", "ann2"))
    assert kick(sessions, "ann") is None
    assert sessions.participant_count("acme", "job:1") == 1


def test_closed_session_refuses_everything_until_it_expires() -> None:
    sessions = Sessions(RULES)
    for who in ("ann1", "bob1"):
        join(sessions, who)
    disconnect(sessions, "bob1")
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


def test_empty_session_expires_once_after_its_retention() -> None:
    sessions = Sessions(RULES)
    record = join(sessions, "ann1").record
    assert sessions.pop_expired(NOW + 999.0) == [], "the session is not empty"
    leave(sessions, "ann1", now=NOW + 1000.0)
    assert sessions.pop_expired(NOW + 1059.9) == []
    assert not join(sessions, "ann1").created
    leave(sessions, "ann1", now=NOW + 1050.0)
    assert sessions.pop_expired(NOW + 1109.9) == []
    assert sessions.pop_expired(NOW + 1110.0) == [record]
    assert sessions.pop_expired(NOW + 9999.0) == []
    assert left_over(sessions) == []
    assert join(sessions, "ann1").record is not record


def test_retention_begins_after_the_last_grace_period() -> None:
    sessions = Sessions(RULES)
    join(sessions, "ann1")
    disconnect(sessions, "ann1")
    assert sessions.pop_expired(NOW + 69.0) == []
    sessions.expire_grace(NOW + 70.0)
    assert sessions.pop_expired(NOW + 129.9) == []
    assert len(sessions.pop_expired(NOW + 130.0)) == 1


def test_created_session_waits_for_its_first_participant() -> None:
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


def test_number_of_sessions_is_limited() -> None:
    sessions = Sessions(replace(RULES, max_sessions=2))
    join(sessions, "ann1", "a")
    join(sessions, "ann1", "b")
    assert refusal(sessions, "ann1", "c").code is ErrorCode.SERVER_OVERLOADED
    assert join(sessions, "bob1", "b").join.announce, "existing sessions stay open"
    leave(sessions, "ann1", "a")
    assert refusal(sessions, "ann1", "c").code is ErrorCode.SERVER_OVERLOADED
    sessions.pop_expired(NOW + 60.0)
    assert join(sessions, "ann1", "c").created


def test_user_cannot_exhaust_sessions_by_joining_and_leaving() -> None:
    sessions = Sessions(replace(RULES, max_sessions_per_user=2))
    for session_id in ("a", "b"):
        join(sessions, "ann1", session_id)
        leave(sessions, "ann1", session_id)
    assert refusal(sessions, "ann1", "c").code is ErrorCode.LIMIT_TOPICS
    assert join(sessions, "bob1", "c").created
    assert not join(sessions, "ann1", "c").created
    sessions.pop_expired(NOW + 60.0)
    assert join(sessions, "ann1", "a").created


def test_full_session_refuses_and_keeps_no_trace() -> None:
    sessions = Sessions(replace(RULES, max_participants=1))
    join(sessions, "ann1")
    assert refusal(sessions, "bob1", "room").code is ErrorCode.LIMIT_CONNECTIONS


@pytest.mark.behaviour("D25", "D26", "D27")
def test_stats_keep_their_keys_and_follow_every_change() -> None:
    sessions = Sessions(RULES)
    seen = [sessions.stats()]
    for who, session_id in (("ann1", "room"), ("ann2", "room"), ("bob1", "job:1")):
        join(sessions, who, session_id)
        seen.append(sessions.stats())
    disconnect(sessions, "ann1")
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


class NotIterable(dict[Any, Any]):
    """A dict that allows lookups but no iteration."""

    def __iter__(self) -> Any:
        raise AssertionError("iterated")

    keys = values = items = __iter__


def test_no_operation_iterates_ten_thousand_sessions() -> None:
    sessions = Sessions(RULES)
    for number in range(10_000):
        join(sessions, f"user{number}x")
        join(sessions, "ann1", f"job:{number}")
    record = sessions.get_open("acme", "job:77")
    presence = join(sessions, "ann1").record.presence
    for index, name in (
        *((sessions, name) for name in ("_orgs", "_created_counts")),
        *((presence, name) for name in ("_owners", "_users")),
    ):
        setattr(index, name, NotIterable(getattr(index, name)))
    sessions._orgs["acme"] = NotIterable(sessions._orgs["acme"])
    join(sessions, "bob1", "job:77")
    kick(sessions, "ann", "job:77")
    assert leave(sessions, "bob1", "job:77") == PresenceLeave("bob", 0, True, ("bob1",))
    assert disconnect(sessions, "user7x") is not None
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
    """The model of one session."""

    joined: set[str] = field(default_factory=set)
    lost: dict[str, float] = field(default_factory=dict)
    closed: bool = False
    empty_since: float | None = None

    def users(self) -> set[str]:
        return {each[:-1] for each in self.joined} | set(self.lost)


connections = st.sampled_from(["ann1", "ann2", "bob1", "cid1"])
ids = st.sampled_from(["room", "job:1"])
orgs = st.sampled_from(["acme", "other"])
GRACE, RETENTION, MAX_SESSIONS = 4.0, 8.0, 3


class RegistryMachine(RuleBasedStateMachine):
    """Any sequence of operations, against plain rooms without indexes."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Sessions(SessionRules(GRACE, RETENTION, max_sessions=MAX_SESSIONS))
        self.now = 0.0
        self.rooms: dict[tuple[str, str], Room] = {}

    def rooms_of(self, who: str) -> set[tuple[str, str]]:
        return {key for key, room in self.rooms.items() if who in room.joined}

    def remove(self, key: tuple[str, str], *who: str, lost_connection: bool = False) -> None:
        room = self.rooms[key]
        room.joined -= set(who)
        for user in {each[:-1] for each in who} - room.users():
            if lost_connection:
                room.lost[user] = self.now
        if not room.users():
            room.empty_since = self.now

    @rule(who=connections, org=orgs, session_id=ids)
    def join(self, who: str, org: str, session_id: str) -> None:
        key = (org, session_id)
        room = self.rooms.get(key)
        if (room is None and len(self.rooms) == MAX_SESSIONS) or (room is not None and room.closed):
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

    @rule(who=connections, org=orgs, session_id=ids, lost_connection=st.booleans())
    def go(self, who: str, org: str, session_id: str, lost_connection: bool) -> None:
        key = (org, session_id)
        was_member = key in self.rooms_of(who)
        left = (self.real.disconnect if lost_connection else self.real.leave)(who, *key, self.now)
        assert (left is not None) == was_member
        if left is not None:
            self.remove(key, who, lost_connection=lost_connection)
            assert left.record.key == key
            assert left.leave.announce == (who[:-1] not in self.rooms[key].users())

    @precondition(lambda self: self.rooms)
    @rule(data=st.data(), user=st.sampled_from(["ann", "bob"]), whole=st.booleans())
    def kick_or_close(self, data: st.DataObject, user: str, whole: bool) -> None:
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
            self.remove(key, *mine)
            room.empty_since = self.now
            return
        was_member = user in room.users()
        left = self.real.kick(*key, user, self.now)
        assert (left is not None) == was_member
        if left is not None:
            assert set(left.leave.connections) == mine
            room.lost.pop(user, None)
            self.remove(key, *mine)

    @rule(seconds=st.sampled_from([1.0, 4.0, 8.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        for left in self.real.expire_grace(self.now):
            room = self.rooms[left.record.key]
            assert room.lost.pop(left.leave.user_id) <= self.now - GRACE
            assert left.leave.announce
            self.remove(left.record.key)
        for record in self.real.pop_expired(self.now):
            gone = self.rooms.pop(record.key)
            assert gone.empty_since is not None
            assert gone.empty_since <= self.now - RETENTION
        # A deadline set at the time of the last call is due at the next one.
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
        """Every connection goes, and after the retention nothing is left."""
        for who in ("ann1", "ann2", "bob1", "cid1"):
            for org, session_id in self.rooms_of(who):
                self.go(who, org, session_id, lost_connection=who == "ann1")
        for _ in range(3):
            self.time(RETENTION)
        assert left_over(self.real) == []


TestRegistry = pytest.mark.behaviour("D44", "D45")(RegistryMachine.TestCase)
TestRegistry.settings = settings(max_examples=150, stateful_step_count=40)
