"""Notices: each is pending until it is acknowledged or expires."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.core.limits.shares import Quota
from server.core.sessions.notices import Notice, Notices

NOW = 1000.0


def notice(notice_id: str, user_id: str = "ann", org: str = "acme") -> Notice:
    return Notice(org, user_id, notice_id, "margin_call", 1_800_000_000_000, b'{"canary":1}')


def make_notices(*, max_per_user: int = 3, max_total: int = 5) -> Notices:
    return Notices(keep_seconds=60.0, max_per_user=max_per_user, max_total=max_total)


def pending_ids(notices: Notices, user_id: str = "ann", org: str = "acme", now: float = NOW) -> str:
    return "".join(each.id for each in notices.pending(org, user_id, now))


def test_pending_returns_unacknowledged_notices_in_order() -> None:
    notices = make_notices()
    first = notice("a")
    assert notices.put(first, NOW)
    assert notices.put(notice("b"), NOW)
    assert notices.pending("acme", "ann", NOW) == (first, notice("b"))
    assert pending_ids(notices) == "ab", "reading does not acknowledge"
    assert pending_ids(notices, "bob") == ""
    assert len(notices) == 2


def test_acknowledge_removes_a_notice_for_one_user_only() -> None:
    notices = make_notices()
    for each in (notice("a"), notice("b"), notice("a", "bob"), notice("a", org="other")):
        assert notices.put(each, NOW)
    assert notices.acknowledge("acme", "ann", "a", NOW)
    assert not notices.acknowledge("acme", "ann", "a", NOW)
    assert not notices.acknowledge("acme", "ann", "unknown", NOW)
    assert not notices.acknowledge("acme", "eve", "b", NOW)
    assert pending_ids(notices) == "b"
    assert pending_ids(notices, "bob") == pending_ids(notices, org="other") == "a"


def test_known_notice_id_is_not_stored_again() -> None:
    notices = make_notices()
    notices.put(notice("a"), NOW)
    assert not notices.put(notice("a"), NOW + 1.0)
    assert pending_ids(notices) == "a"
    notices.acknowledge("acme", "ann", "a", NOW + 2.0)
    assert not notices.put(notice("a"), NOW + 61.9), "a retry of the sender"
    assert pending_ids(notices) == ""
    assert notices.put(notice("a"), NOW + 62.0)


def test_one_org_never_pushes_out_the_notices_of_another() -> None:
    notices = make_notices(max_per_user=100)
    notices.put(notice("kept", org="small"), NOW)
    for number in range(20):
        notices.put(notice(str(number), f"user{number}"), NOW)
    assert len(notices) == 5
    assert pending_ids(notices, org="small") == "kept"
    assert notices.dropped_count == 16


def test_org_drops_its_own_oldest_notices_by_number_and_bytes() -> None:
    def kept(org: Quota) -> str:
        notices = Notices(keep_seconds=60.0, max_per_user=9, max_total=99, org=org)
        for each in "abcd":
            notices.put(notice(each), NOW)
        notices.put(notice("e", org="other"), NOW)
        return pending_ids(notices) + pending_ids(notices, org="other")

    assert kept(Quota(3)) == "bcde"
    assert kept(Quota(size_bytes=2_100)) == "cde"


def test_acknowledged_ids_of_another_org_stay_known() -> None:
    notices = make_notices(max_per_user=100)
    notices.put(notice("kept", org="small"), NOW)
    notices.acknowledge("small", "ann", "kept", NOW)
    for number in range(20):
        notices.put(notice(str(number)), NOW)
        notices.acknowledge("acme", "ann", str(number), NOW)
    assert not notices.put(notice("kept", org="small"), NOW + 1.0)
    assert notices.put(notice("0"), NOW + 1.0), "its own oldest is forgotten"


def test_expired_notice_is_not_pending_before_the_sweep() -> None:
    notices = make_notices()
    notices.put(notice("a"), NOW)
    notices.put(notice("b"), NOW + 1.0)
    assert pending_ids(notices, now=NOW + 59.9) == "ab"
    assert pending_ids(notices, now=NOW + 60.0) == "b"
    assert not notices.acknowledge("acme", "ann", "a", NOW + 60.0)
    assert (len(notices), notices.expired_count) == (1, 1)
    notices.expire(NOW + 61.0)
    assert (len(notices), notices.expired_count, notices.dropped_count) == (0, 2, 0)


def test_full_user_keeps_the_newest_notices() -> None:
    notices = make_notices(max_per_user=2)
    for notice_id in "abcd":
        notices.put(notice(notice_id), NOW)
    notices.put(notice("z", "bob"), NOW)
    assert (pending_ids(notices), pending_ids(notices, "bob")) == ("cd", "z")
    assert notices.dropped_count == 2
    assert notices.put(notice("a"), NOW), "an evicted id is unknown"


def test_total_is_bounded_and_evicts_the_oldest_notice() -> None:
    notices = make_notices(max_per_user=3, max_total=3)
    for user_id in ("ann", "bob", "cid", "dan"):
        notices.put(notice("a", user_id), NOW)
    assert [pending_ids(notices, user_id) for user_id in ("ann", "bob", "cid", "dan")] == [
        "",
        *"aaa",
    ]
    assert (len(notices), notices.dropped_count) == (3, 1)


def test_acknowledged_ids_evict_no_pending_notice() -> None:
    notices = make_notices(max_per_user=3, max_total=3)
    notices.put(notice("waits", "bob"), NOW)
    for number in range(50):
        notices.put(notice(f"n{number}"), NOW)
        assert notices.acknowledge("acme", "ann", f"n{number}", NOW)
    assert pending_ids(notices, "bob") == "waits"
    assert (len(notices), len(notices._acknowledged), notices.dropped_count) == (1, 3, 0)


def test_repr_of_a_notice_hides_its_data() -> None:
    assert "canary" not in repr(notice("a"))


@dataclass
class Stored:
    notice: Notice
    at: float
    acknowledged_at: float | None = None


class NoticesMachine(RuleBasedStateMachine):
    """Any sequence of operations, against a list of stored notices."""

    def __init__(self) -> None:
        super().__init__()
        self.real = make_notices(max_per_user=2, max_total=3)
        self.now = 0.0
        self.stored: list[Stored] = []
        self.put_count = self.acknowledged_count = 0

    def unacknowledged(self, user_id: str | None = None) -> list[Stored]:
        return [
            each
            for each in self.stored
            if each.acknowledged_at is None and user_id in (None, each.notice.user_id)
        ]

    @rule(user_id=st.sampled_from(["ann", "bob", "cid"]), notice_id=st.sampled_from("abc"))
    def put(self, user_id: str, notice_id: str) -> None:
        new = notice(notice_id, user_id)
        known = any(each.notice == new for each in self.stored)
        assert self.real.put(new, self.now) == (not known)
        if known:
            return
        self.stored.append(Stored(new, self.now))
        self.put_count += 1
        mine = self.unacknowledged(user_id)
        if len(mine) > 2:
            self.stored.remove(mine[0])
        elif len(self.unacknowledged()) > 3:
            self.stored.remove(self.unacknowledged()[0])

    @rule(user_id=st.sampled_from(["ann", "bob", "cid"]), notice_id=st.sampled_from("abc"))
    def acknowledge(self, user_id: str, notice_id: str) -> None:
        found = [each for each in self.unacknowledged(user_id) if each.notice.id == notice_id]
        assert self.real.acknowledge("acme", user_id, notice_id, self.now) == bool(found)
        for each in found:
            each.acknowledged_at = self.now
            self.acknowledged_count += 1
            # The id acknowledged first is forgotten first; the latest stands at the end.
            self.stored.remove(each)
            self.stored.append(each)
        acknowledged = [each for each in self.stored if each.acknowledged_at is not None]
        for each in acknowledged[:-3]:
            self.stored.remove(each)

    @rule(seconds=st.sampled_from([1.0, 30.0, 60.0]), clean=st.booleans())
    def time(self, seconds: float, clean: bool) -> None:
        self.now += seconds
        if clean:
            self.real.expire(self.now)
        since = self.now - 60.0
        self.stored = [
            each
            for each in self.stored
            if (each.at if each.acknowledged_at is None else each.acknowledged_at) > since
        ]

    @invariant()
    def pending_notices_agree(self) -> None:
        for user_id in ("ann", "bob", "cid"):
            mine = tuple(each.notice for each in self.unacknowledged(user_id))
            assert self.real.pending("acme", user_id, self.now) == mine

    @invariant()
    def bounds_and_counts_agree(self) -> None:
        real = self.real
        assert len(real) <= 3
        assert len(real._acknowledged) <= 3
        assert len(real) == sum(map(len, real._users.values()))
        removed = real.dropped_count + real.expired_count + self.acknowledged_count
        assert self.put_count == len(real) + removed

    def teardown(self) -> None:
        """After the retention nothing is left."""
        self.real.expire(self.now + 60.0)
        assert not self.real._users
        assert not self.real._order
        assert not self.real._acknowledged


TestAnySequence = NoticesMachine.TestCase
TestAnySequence.settings = settings(max_examples=150, stateful_step_count=40)
