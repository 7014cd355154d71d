"""Presence: it counts users instead of connections, and waits for lost ones."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from client_sdk.contract import ErrorCode, Participant
from server.core.errors import LimitError
from server.core.sessions.presence import Member, Presence, PresenceJoin, PresenceLeave

NOW_MS = 1_800_000_000_000


def presence(*joined: str, grace_seconds: float = 10.0) -> Presence:
    """A session with these connections in it; `ann1` is one of ann's."""
    made = Presence(grace_seconds=grace_seconds)
    for connection_id in joined:
        made.join(connection_id, connection_id[:-1], NOW_MS)
    return made


def test_presence_counts_users_and_their_connections() -> None:
    session = presence()
    assert session.join("ann1", "ann", NOW_MS) == PresenceJoin("ann", 1, announce=True)
    assert session.join("bob1", "bob", NOW_MS + 5) == PresenceJoin("bob", 2, announce=True)
    assert session.join("ann2", "ann", NOW_MS + 9) == PresenceJoin("ann", 2, announce=False)
    assert session.members() == (Member("ann", 2, NOW_MS), Member("bob", 1, NOW_MS + 5))
    assert (session.participant_count, session.connection_count) == (2, 3)
    assert session.connections_of("ann") == ("ann1", "ann2")
    assert session.connections_of("eve") == ()
    assert (session.user_of("ann2"), session.user_of("eve1")) == ("ann", None)
    assert "ann" in session
    assert "eve" not in session


def test_member_body_matches_the_contract() -> None:
    [member] = presence("ann1", "ann2").members()
    shown = Participant.model_validate(member.body())
    assert shown == Participant(user_id="ann", connections=2, joined_at=NOW_MS)
    assert shown.model_dump() == member.body()


def test_connection_that_joins_twice_changes_nothing() -> None:
    session = presence("ann1")
    assert session.join("ann1", "ann", NOW_MS + 7) == PresenceJoin("ann", 1, announce=False)
    assert session.join("ann1", "eve", NOW_MS + 7) == PresenceJoin("ann", 1, announce=False)
    assert session.members() == (Member("ann", 1, NOW_MS),)


@pytest.mark.behaviour("E6")
def test_leave_of_the_last_connection_is_announced() -> None:
    session = presence("ann1", "ann2", "bob1")
    assert session.leave("ann1") == PresenceLeave("ann", 2, announce=False, connections=("ann1",))
    assert session.leave("ann2") == PresenceLeave("ann", 1, announce=True, connections=("ann2",))
    assert session.leave("ann2") is None
    assert session.next_expiry() is None


def test_lost_user_is_announced_once_after_the_grace_period() -> None:
    session = presence("ann1", "bob1")
    assert session.disconnect("ann1", 100.0) == PresenceLeave(
        "ann", 2, announce=False, connections=("ann1",)
    )
    assert session.disconnect("ann1", 101.0) is None
    assert session.members()[0] == Member("ann", 0, NOW_MS)
    assert session.next_expiry() == 110.0
    assert session.pop_expired(109.9) == []
    assert session.pop_expired(110.0) == [PresenceLeave("ann", 1, announce=True)]
    assert session.pop_expired(110.0) == []
    assert session.next_expiry() is None


def test_user_who_returns_within_the_grace_period_stays() -> None:
    session = presence("ann1")
    session.disconnect("ann1", 100.0)
    assert session.join("ann9", "ann", NOW_MS + 5000) == PresenceJoin("ann", 1, announce=False)
    assert session.members() == (Member("ann", 1, NOW_MS),)
    assert session.pop_expired(1000.0) == []


def test_second_loss_has_its_own_grace_period() -> None:
    session = presence("ann1", "bob1")
    session.disconnect("ann1", 100.0)
    session.disconnect("bob1", 103.0)
    session.join("ann2", "ann", NOW_MS)
    session.disconnect("ann2", 105.0)
    assert session.next_expiry() == 113.0
    assert session.pop_expired(200.0) == [
        PresenceLeave("bob", 1, announce=True),
        PresenceLeave("ann", 0, True),
    ]


def test_user_with_another_connection_is_not_lost() -> None:
    session = presence("ann1", "ann2")
    session.disconnect("ann1", 100.0)
    assert session.next_expiry() is None
    assert session.pop_expired(1000.0) == []
    assert session.leave("ann2") == PresenceLeave("ann", 0, announce=True, connections=("ann2",))


def test_disconnect_is_a_leave_without_a_grace_period() -> None:
    session = presence("ann1", grace_seconds=0)
    assert session.disconnect("ann1", 100.0) == PresenceLeave(
        "ann", 0, announce=True, connections=("ann1",)
    )


def test_kick_removes_every_connection_at_once() -> None:
    session = presence("ann1", "ann2", "bob1")
    assert session.kick("ann") == PresenceLeave(
        "ann", 1, announce=True, connections=("ann1", "ann2")
    )
    assert session.kick("ann") is None
    assert session.leave("ann1") is None
    assert session.join("ann1", "ann", NOW_MS).announce


def test_kick_in_the_grace_period_is_announced_once() -> None:
    session = presence("ann1")
    session.disconnect("ann1", 100.0)
    assert session.kick("ann") == PresenceLeave("ann", 0, announce=True)
    assert session.pop_expired(1000.0) == []


def test_clear_removes_users_and_deadlines() -> None:
    session = presence("ann1", "ann2", "bob1")
    session.disconnect("bob1", 100.0)
    assert session.clear() == ("ann1", "ann2")
    assert (session.members(), session.pop_expired(1000.0), session.connection_count) == ((), [], 0)


def test_full_session_readmits_its_participants_only() -> None:
    session = Presence(grace_seconds=10.0, max_participants=1)
    session.join("ann1", "ann", NOW_MS)
    session.disconnect("ann1", 100.0)
    with pytest.raises(LimitError) as refusal:
        session.join("bob1", "bob", NOW_MS)
    assert refusal.value.code is ErrorCode.LIMIT_CONNECTIONS
    assert session.user_of("bob1") is None
    assert session.join("ann2", "ann", NOW_MS).participant_count == 1


connections = st.sampled_from(["ann1", "ann2", "bob1", "bob2", "cid1"])
users = st.sampled_from(["ann", "bob", "cid"])


class PresenceMachine(RuleBasedStateMachine):
    """Any sequence of operations, against a model without indexes."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Presence(grace_seconds=4.0)
        self.now = 0.0
        self.joined: set[str] = set()
        self.lost_at: dict[str, float] = {}
        # The participants according to the announcements alone.
        self.announced_users: set[str] = set()

    def participants(self) -> set[str]:
        return {each[:-1] for each in self.joined} | set(self.lost_at)

    def announced(self, change: PresenceJoin | PresenceLeave) -> None:
        assert change.participant_count == len(self.participants())
        if not change.announce:
            return
        if isinstance(change, PresenceJoin):
            assert change.user_id not in self.announced_users
            self.announced_users.add(change.user_id)
        else:
            self.announced_users.remove(change.user_id)

    @rule(who=connections)
    def join(self, who: str) -> None:
        self.joined.add(who)
        self.lost_at.pop(who[:-1], None)
        self.announced(self.real.join(who, who[:-1], NOW_MS))

    @rule(who=connections, deliberately=st.booleans())
    def go(self, who: str, deliberately: bool) -> None:
        was_here = who in self.joined
        self.joined.discard(who)
        if was_here and not deliberately and who[:-1] not in self.participants():
            self.lost_at[who[:-1]] = self.now
        left = self.real.leave(who) if deliberately else self.real.disconnect(who, self.now)
        assert (left is not None) == was_here
        if left is not None:
            assert left.connections == (who,)
            self.announced(left)

    @rule(user=users)
    def kick(self, user: str) -> None:
        was_here = user in self.participants()
        mine = {each for each in self.joined if each[:-1] == user}
        self.joined -= mine
        self.lost_at.pop(user, None)
        left = self.real.kick(user)
        assert (left is not None) == was_here
        if left is not None:
            assert set(left.connections) == mine
            self.announced(left)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        for left in self.real.pop_expired(self.now):
            assert self.lost_at.pop(left.user_id) <= self.now - 4.0
            self.announced(left)
        assert all(when > self.now - 4.0 for when in self.lost_at.values())

    @invariant()
    def counts_are_right(self) -> None:
        participants = self.participants()
        assert self.announced_users == participants
        assert {each.user_id: each.connections for each in self.real.members()} == {
            user: sum(each[:-1] == user for each in self.joined) for user in participants
        }
        assert self.real.participant_count == len(participants)
        assert self.real.connection_count == len(self.joined)
        assert self.real.next_expiry() == (
            min(self.lost_at.values()) + 4.0 if self.lost_at else None
        )

    def teardown(self) -> None:
        """Every connection goes, and nothing is left."""
        for number, who in enumerate(sorted(self.joined)):
            self.go(who, bool(number % 2))
        self.time(4.0)
        assert self.announced_users == set()
        assert not self.real._owners
        assert not self.real._users
        assert not self.real._lost


TestAnyOrder = pytest.mark.behaviour("D45")(PresenceMachine.TestCase)
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40)
