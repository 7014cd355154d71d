"""Subscriptions: both directions always agree."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.core.subscriptions import Subscriptions

people = st.sampled_from(["ann", "bob", "carl"])
channels = st.sampled_from(["PRICE:A", "PRICE:B", "PRICE:C"])


def test_a_subscription_shows_in_both_directions_until_it_ends() -> None:
    subscriptions = Subscriptions()
    subscriptions.add("ann", "PRICE:A")
    subscriptions.add("ann", "PRICE:A")
    subscriptions.add("bob", "PRICE:A")
    assert list(subscriptions.subscribers("PRICE:A")) == ["ann", "bob"]
    assert subscriptions.channels_of("ann") == ("PRICE:A",)
    assert subscriptions.listens("ann", "PRICE:A")
    assert subscriptions.remove("ann", "PRICE:A")
    assert not subscriptions.remove("ann", "PRICE:A")
    assert list(subscriptions.subscribers("PRICE:A")) == ["bob"]
    assert subscriptions.remove_all("bob") == ("PRICE:A",)
    assert subscriptions.channels() == ()
    assert len(subscriptions) == 0


@given(st.lists(st.tuples(people, channels)), st.booleans())
def test_nothing_is_kept_of_those_who_have_gone(
    pairs: list[tuple[str, str]], at_once: bool
) -> None:
    subscriptions = Subscriptions()
    for who, what in pairs:
        subscriptions.add(who, what)
    for who, what in pairs:
        if at_once:
            subscriptions.remove_all(who)
        else:
            subscriptions.remove(who, what)
    # What is kept and not shown is what leaks, so this looks inside.
    assert not subscriptions._channels
    assert not subscriptions._subscribers


def test_the_view_of_a_channel_follows_what_happens() -> None:
    subscriptions = Subscriptions()
    subscriptions.add("ann", "PRICE:A")
    view = subscriptions.subscribers("PRICE:A")
    subscriptions.add("bob", "PRICE:A")
    assert list(view) == ["ann", "bob"]
    assert list(subscriptions.subscribers("PRICE:B")) == []


class Both(RuleBasedStateMachine):
    """Any sequence of operations, beside a set of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions = Subscriptions()
        self.model: set[tuple[str, str]] = set()

    @rule(who=people, what=channels)
    def add(self, who: str, what: str) -> None:
        self.subscriptions.add(who, what)
        self.model.add((who, what))

    @rule(who=people, what=channels)
    def remove(self, who: str, what: str) -> None:
        assert self.subscriptions.remove(who, what) is ((who, what) in self.model)
        self.model.discard((who, what))

    @rule(who=people)
    def remove_all(self, who: str) -> None:
        ended = self.subscriptions.remove_all(who)
        assert set(ended) == {what for each, what in self.model if each == who}
        self.model = {pair for pair in self.model if pair[0] != who}

    @invariant()
    def both_directions_agree(self) -> None:
        assert len(self.subscriptions) == len(self.model)
        assert set(self.subscriptions.channels()) == {what for _, what in self.model}
        for what in ("PRICE:A", "PRICE:B", "PRICE:C"):
            listeners = {who for who, each in self.model if each == what}
            assert set(self.subscriptions.subscribers(what)) == listeners
        for who in ("ann", "bob", "carl"):
            mine = {what for each, what in self.model if each == who}
            assert set(self.subscriptions.channels_of(who)) == mine
            assert self.subscriptions.count_of(who) == len(mine)


TestBoth = Both.TestCase
TestBoth.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
