"""Presence: users and not connections are counted, and nobody leaves who comes back at once."""

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


def test_users_are_counted_once_and_their_connections_with_each() -> None:
    here = presence()
    assert here.join("ann1", "ann", NOW_MS) == PresenceJoin("ann", 1, announce=True)
    assert here.join("bob1", "bob", NOW_MS + 5) == PresenceJoin("bob", 2, announce=True)
    assert here.join("ann2", "ann", NOW_MS + 9) == PresenceJoin("ann", 2, announce=False)
    assert here.members() == (Member("ann", 2, NOW_MS), Member("bob", 1, NOW_MS + 5))
    assert (here.participant_count, here.connection_count) == (2, 3)
    assert here.connections_of("ann") == ("ann1", "ann2")
    assert here.connections_of("eve") == ()
    assert (here.user_of("ann2"), here.user_of("eve1")) == ("ann", None)
    assert "ann" in here
    assert "eve" not in here


def test_a_participant_is_shown_as_the_contract_says() -> None:
    [member] = presence("ann1", "ann2").members()
    shown = Participant.model_validate(member.body())
    assert shown == Participant(user_id="ann", connections=2, joined_at=NOW_MS)
    assert shown.model_dump() == member.body()


def test_a_connection_that_joins_twice_changes_nothing() -> None:
    here = presence("ann1")
    assert here.join("ann1", "ann", NOW_MS + 7) == PresenceJoin("ann", 1, announce=False)
    assert here.join("ann1", "eve", NOW_MS + 7) == PresenceJoin("ann", 1, announce=False)
    assert here.members() == (Member("ann", 1, NOW_MS),)


@pytest.mark.behaviour("E6")
def test_a_leave_is_announced_at_once_with_the_last_connection() -> None:
    here = presence("ann1", "ann2", "bob1")
    assert here.leave("ann1") == PresenceLeave("ann", 2, announce=False, connections=("ann1",))
    assert here.leave("ann2") == PresenceLeave("ann", 1, announce=True, connections=("ann2",))
    assert here.leave("ann2") is None
    assert here.next_expiry() is None


def test_a_lost_connection_is_announced_only_after_the_grace_time_and_once() -> None:
    here = presence("ann1", "bob1")
    assert here.disconnect("ann1", 100.0) == PresenceLeave(
        "ann", 2, announce=False, connections=("ann1",)
    )
    assert here.disconnect("ann1", 101.0) is None
    assert here.members()[0] == Member("ann", 0, NOW_MS)
    assert here.next_expiry() == 110.0
    assert here.pop_expired(109.9) == []
    assert here.pop_expired(110.0) == [PresenceLeave("ann", 1, announce=True)]
    assert here.pop_expired(110.0) == []
    assert here.next_expiry() is None


def test_who_is_back_within_the_grace_time_was_never_gone() -> None:
    here = presence("ann1")
    here.disconnect("ann1", 100.0)
    assert here.join("ann9", "ann", NOW_MS + 5000) == PresenceJoin("ann", 1, announce=False)
    assert here.members() == (Member("ann", 1, NOW_MS),)
    assert here.pop_expired(1000.0) == []


def test_a_second_loss_has_a_grace_time_of_its_own() -> None:
    here = presence("ann1", "bob1")
    here.disconnect("ann1", 100.0)
    here.disconnect("bob1", 103.0)
    here.join("ann2", "ann", NOW_MS)
    here.disconnect("ann2", 105.0)
    assert here.next_expiry() == 113.0
    assert here.pop_expired(200.0) == [
        PresenceLeave("bob", 1, announce=True),
        PresenceLeave("ann", 0, True),
    ]


def test_losing_one_of_two_connections_is_no_loss_of_the_user() -> None:
    here = presence("ann1", "ann2")
    here.disconnect("ann1", 100.0)
    assert here.next_expiry() is None
    assert here.pop_expired(1000.0) == []
    assert here.leave("ann2") == PresenceLeave("ann", 0, announce=True, connections=("ann2",))


def test_without_a_grace_time_a_loss_is_a_leave() -> None:
    here = presence("ann1", grace_seconds=0)
    assert here.disconnect("ann1", 100.0) == PresenceLeave(
        "ann", 0, announce=True, connections=("ann1",)
    )


def test_a_kick_takes_every_connection_and_does_not_wait() -> None:
    here = presence("ann1", "ann2", "bob1")
    assert here.kick("ann") == PresenceLeave("ann", 1, announce=True, connections=("ann1", "ann2"))
    assert here.kick("ann") is None
    assert here.leave("ann1") is None
    assert here.join("ann1", "ann", NOW_MS).announce


def test_a_kick_in_the_grace_time_is_announced_once_and_then_nothing_is_due() -> None:
    here = presence("ann1")
    here.disconnect("ann1", 100.0)
    assert here.kick("ann") == PresenceLeave("ann", 0, announce=True)
    assert here.pop_expired(1000.0) == []


def test_when_it_is_cleared_nobody_is_left_and_nothing_is_due() -> None:
    here = presence("ann1", "ann2", "bob1")
    here.disconnect("bob1", 100.0)
    assert here.clear() == ("ann1", "ann2")
    assert (here.members(), here.pop_expired(1000.0), here.connection_count) == ((), [], 0)


def test_a_full_session_takes_nobody_new_but_everybody_back() -> None:
    here = Presence(grace_seconds=10.0, max_participants=1)
    here.join("ann1", "ann", NOW_MS)
    here.disconnect("ann1", 100.0)
    with pytest.raises(LimitError) as refused:
        here.join("bob1", "bob", NOW_MS)
    assert refused.value.code is ErrorCode.LIMIT_CONNECTIONS
    assert here.user_of("bob1") is None
    assert here.join("ann2", "ann", NOW_MS).participant_count == 1


connections = st.sampled_from(["ann1", "ann2", "bob1", "bob2", "cid1"])
users = st.sampled_from(["ann", "bob", "cid"])


class Beside(RuleBasedStateMachine):
    """Any order of events, beside a model that looks through everything each time."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Presence(grace_seconds=4.0)
        self.now = 0.0
        self.joined: set[str] = set()
        self.lost_at: dict[str, float] = {}
        # What the others in the session believe, from the announcements alone.
        self.believed: set[str] = set()

    def there(self) -> set[str]:
        return {each[:-1] for each in self.joined} | set(self.lost_at)

    def told(self, what: PresenceJoin | PresenceLeave) -> None:
        assert what.participant_count == len(self.there())
        if not what.announce:
            return
        if isinstance(what, PresenceJoin):
            assert what.user_id not in self.believed
            self.believed.add(what.user_id)
        else:
            self.believed.remove(what.user_id)

    @rule(who=connections)
    def join(self, who: str) -> None:
        self.joined.add(who)
        self.lost_at.pop(who[:-1], None)
        self.told(self.real.join(who, who[:-1], NOW_MS))

    @rule(who=connections, deliberately=st.booleans())
    def go(self, who: str, deliberately: bool) -> None:
        was_here = who in self.joined
        self.joined.discard(who)
        if was_here and not deliberately and who[:-1] not in self.there():
            self.lost_at[who[:-1]] = self.now
        departure = self.real.leave(who) if deliberately else self.real.disconnect(who, self.now)
        assert (departure is not None) == was_here
        if departure is not None:
            assert departure.connections == (who,)
            self.told(departure)

    @rule(user=users)
    def kick(self, user: str) -> None:
        was_here = user in self.there()
        mine = {each for each in self.joined if each[:-1] == user}
        self.joined -= mine
        self.lost_at.pop(user, None)
        departure = self.real.kick(user)
        assert (departure is not None) == was_here
        if departure is not None:
            assert set(departure.connections) == mine
            self.told(departure)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        for departure in self.real.pop_expired(self.now):
            assert self.lost_at.pop(departure.user_id) <= self.now - 4.0
            self.told(departure)
        assert all(when > self.now - 4.0 for when in self.lost_at.values())

    @invariant()
    def counts_are_right(self) -> None:
        there = self.there()
        assert self.believed == there
        assert {each.user_id: each.connections for each in self.real.members()} == {
            user: sum(each[:-1] == user for each in self.joined) for user in there
        }
        assert self.real.participant_count == len(there)
        assert self.real.connection_count == len(self.joined)
        assert self.real.next_expiry() == (
            min(self.lost_at.values()) + 4.0 if self.lost_at else None
        )

    def teardown(self) -> None:
        """Everybody goes, one way or the other, and nothing stays."""
        for number, who in enumerate(sorted(self.joined)):
            self.go(who, bool(number % 2))
        self.time(4.0)
        assert self.believed == set()
        assert not self.real._owners
        assert not self.real._users
        assert not self.real._lost


TestAnyOrder = pytest.mark.behaviour("D45")(Beside.TestCase)
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40)
