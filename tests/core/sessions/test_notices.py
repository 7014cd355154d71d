"""Notices: each waits until one device has acknowledged it, or it is too old."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.core.sessions.notices import Notice, Notices

NOW = 1000.0


def notice(notice_id: str, user_id: str = "ann", org: str = "acme") -> Notice:
    return Notice(org, user_id, notice_id, "margin_call", 1_800_000_000_000, b'{"canary":1}')


def notices(*, max_per_user: int = 3, max_total: int = 5) -> Notices:
    return Notices(keep_seconds=60.0, max_per_user=max_per_user, max_total=max_total)


def waiting(kept: Notices, user_id: str = "ann", org: str = "acme", now: float = NOW) -> str:
    return "".join(each.id for each in kept.pending(org, user_id, now))


def test_a_device_that_connects_is_told_in_order_what_nobody_acknowledged() -> None:
    kept = notices()
    first = notice("a")
    assert kept.put(first, NOW)
    assert kept.put(notice("b"), NOW)
    assert kept.pending("acme", "ann", NOW) == (first, notice("b"))
    assert waiting(kept) == "ab", "looking does not settle it"
    assert waiting(kept, "bob") == ""
    assert len(kept) == 2


def test_one_device_settles_it_for_the_user_and_for_nobody_else() -> None:
    kept = notices()
    for each in (notice("a"), notice("b"), notice("a", "bob"), notice("a", org="other")):
        assert kept.put(each, NOW)
    assert kept.acknowledge("acme", "ann", "a", NOW)
    assert not kept.acknowledge("acme", "ann", "a", NOW)
    assert not kept.acknowledge("acme", "ann", "unknown", NOW)
    assert not kept.acknowledge("acme", "eve", "b", NOW)
    assert waiting(kept) == "b"
    assert waiting(kept, "bob") == waiting(kept, org="other") == "a"


def test_sent_again_under_its_id_it_is_not_told_again() -> None:
    kept = notices()
    kept.put(notice("a"), NOW)
    assert not kept.put(notice("a"), NOW + 1.0)
    assert waiting(kept) == "a"
    kept.acknowledge("acme", "ann", "a", NOW + 2.0)
    assert not kept.put(notice("a"), NOW + 61.9), "whoever sends it may not know"
    assert waiting(kept) == ""
    assert kept.put(notice("a"), NOW + 62.0)


def test_one_that_is_too_old_is_not_told_even_before_anybody_cleans_up() -> None:
    kept = notices()
    kept.put(notice("a"), NOW)
    kept.put(notice("b"), NOW + 1.0)
    assert waiting(kept, now=NOW + 59.9) == "ab"
    assert waiting(kept, now=NOW + 60.0) == "b"
    assert not kept.acknowledge("acme", "ann", "a", NOW + 60.0)
    assert (len(kept), kept.expired_count) == (1, 1)
    kept.expire(NOW + 61.0)
    assert (len(kept), kept.expired_count, kept.dropped_count) == (0, 2, 0)


def test_who_is_away_for_long_keeps_the_newest_and_the_loss_is_counted() -> None:
    kept = notices(max_per_user=2)
    for notice_id in "abcd":
        kept.put(notice(notice_id), NOW)
    kept.put(notice("z", "bob"), NOW)
    assert (waiting(kept), waiting(kept, "bob")) == ("cd", "z")
    assert kept.dropped_count == 2
    assert kept.put(notice("a"), NOW), "what was dropped was never settled"


def test_all_together_are_bounded_and_the_oldest_goes_first() -> None:
    kept = notices(max_per_user=3, max_total=3)
    for user_id in ("ann", "bob", "cid", "dan"):
        kept.put(notice("a", user_id), NOW)
    assert [waiting(kept, user_id) for user_id in ("ann", "bob", "cid", "dan")] == ["", *"aaa"]
    assert (len(kept), kept.dropped_count) == (3, 1)


def test_what_is_settled_takes_no_place_from_what_waits() -> None:
    kept = notices(max_per_user=3, max_total=3)
    kept.put(notice("waits", "bob"), NOW)
    for number in range(50):
        kept.put(notice(f"n{number}"), NOW)
        assert kept.acknowledge("acme", "ann", f"n{number}", NOW)
    assert waiting(kept, "bob") == "waits"
    assert (len(kept), len(kept._acknowledged), kept.dropped_count) == (1, 3, 0)


def test_what_a_notice_says_is_not_printed() -> None:
    assert "canary" not in repr(notice("a"))


@dataclass
class Sent:
    notice: Notice
    at: float
    settled_at: float | None = None


class Beside(RuleBasedStateMachine):
    """Any sequence, beside a list of all that was ever put."""

    def __init__(self) -> None:
        super().__init__()
        self.real = notices(max_per_user=2, max_total=3)
        self.now = 0.0
        self.kept: list[Sent] = []
        self.put_count = self.settled_count = 0

    def waiting(self, user_id: str | None = None) -> list[Sent]:
        return [
            each
            for each in self.kept
            if each.settled_at is None and user_id in (None, each.notice.user_id)
        ]

    @rule(user_id=st.sampled_from(["ann", "bob", "cid"]), notice_id=st.sampled_from("abc"))
    def put(self, user_id: str, notice_id: str) -> None:
        new = notice(notice_id, user_id)
        known = any(each.notice == new for each in self.kept)
        assert self.real.put(new, self.now) == (not known)
        if known:
            return
        self.kept.append(Sent(new, self.now))
        self.put_count += 1
        mine = self.waiting(user_id)
        if len(mine) > 2:
            self.kept.remove(mine[0])
        elif len(self.waiting()) > 3:
            self.kept.remove(self.waiting()[0])

    @rule(user_id=st.sampled_from(["ann", "bob", "cid"]), notice_id=st.sampled_from("abc"))
    def acknowledge(self, user_id: str, notice_id: str) -> None:
        found = [each for each in self.waiting(user_id) if each.notice.id == notice_id]
        assert self.real.acknowledge("acme", user_id, notice_id, self.now) == bool(found)
        for each in found:
            each.settled_at = self.now
            self.settled_count += 1
            # The one that was settled first makes room; the latest stands at the end.
            self.kept.remove(each)
            self.kept.append(each)
        settled = [each for each in self.kept if each.settled_at is not None]
        for each in settled[:-3]:
            self.kept.remove(each)

    @rule(seconds=st.sampled_from([1.0, 30.0, 60.0]), clean=st.booleans())
    def time(self, seconds: float, clean: bool) -> None:
        self.now += seconds
        if clean:
            self.real.expire(self.now)
        since = self.now - 60.0
        self.kept = [
            each
            for each in self.kept
            if (each.at if each.settled_at is None else each.settled_at) > since
        ]

    @invariant()
    def what_waits_is_right(self) -> None:
        for user_id in ("ann", "bob", "cid"):
            mine = tuple(each.notice for each in self.waiting(user_id))
            assert self.real.pending("acme", user_id, self.now) == mine

    @invariant()
    def it_is_bounded_and_every_one_is_accounted_for(self) -> None:
        real = self.real
        assert len(real) <= 3
        assert len(real._acknowledged) <= 3
        assert len(real) == sum(map(len, real._users.values()))
        gone = real.dropped_count + real.expired_count + self.settled_count
        assert self.put_count == len(real) + gone

    def teardown(self) -> None:
        """In time nothing is left."""
        self.real.expire(self.now + 60.0)
        assert not self.real._users
        assert not self.real._order
        assert not self.real._acknowledged


TestAnySequence = Beside.TestCase
TestAnySequence.settings = settings(max_examples=150, stateful_step_count=40)
