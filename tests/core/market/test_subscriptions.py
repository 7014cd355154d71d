"""Subscriptions: five states, a key, and indexes that always agree."""

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from client_sdk.contract import Stream, SubscriptionStatus
from server.core.market.subscriptions import IllegalTransition, Subscription, Subscriptions
from server.core.market.topics import Topic, channel_for

PRICE = Topic(Stream.PRICE, "BTCUSDT")
TRADES = Topic(Stream.TRADES, "BTCUSDT")
USER = Topic(Stream.USER_DATA, None)


def subscribe(subscriptions: Subscriptions, connection: str, *topics: Topic) -> None:
    for topic in topics:
        subscriptions.activate(connection, subscriptions.request(connection, topic), 0)


@pytest.mark.behaviour("B6", "B7", "B8")
def test_subscription_has_key_channel_status_and_connections() -> None:
    public = Subscription("acme", "ann", PRICE)
    private = Subscription("acme", "ann", USER)
    assert (public.key, private.key) == ("ann:PRICE:BTCUSDT", "ann:USER_DATA")
    assert (public.channel, private.channel) == ("PRICE:BTCUSDT", "USER_DATA@4:acme:ann")
    assert public.status is SubscriptionStatus.PENDING
    assert public.connections == {}
    assert "PRICE" in repr(public)


PENDING, CONNECTED, DISCONNECTED, ERROR, RECONNECTING = (
    SubscriptionStatus[name]
    for name in ("PENDING", "CONNECTED", "DISCONNECTED", "ERROR", "RECONNECTING")
)
TRANSITIONS = {
    PENDING: {CONNECTED, ERROR, DISCONNECTED},
    CONNECTED: {RECONNECTING, ERROR, DISCONNECTED},
    RECONNECTING: {PENDING, CONNECTED, ERROR, DISCONNECTED},
    ERROR: {PENDING, DISCONNECTED},
    DISCONNECTED: {PENDING},
}


@pytest.mark.behaviour("B2")
@pytest.mark.parametrize(("start", "end"), list(product(SubscriptionStatus, repeat=2)))
def test_subscription_allows_only_legal_transitions(
    start: SubscriptionStatus, end: SubscriptionStatus
) -> None:
    subscription = Subscription("acme", "ann", PRICE, start)
    if end is start or end in TRANSITIONS[start]:
        subscription.transition(end)
        assert subscription.status is end
    else:
        with pytest.raises(IllegalTransition, match="ann:PRICE:BTCUSDT"):
            subscription.transition(end)
        assert subscription.status is start


@pytest.mark.behaviour("B2")
def test_status_follows_the_connections_of_a_subscription() -> None:
    subscriptions = Subscriptions()
    for connection in ("phone", "desk"):
        subscriptions.add_connection(connection, "acme", "ann")
    subscription = subscriptions.request("phone", PRICE)
    assert subscription.status is PENDING
    subscriptions.activate("phone", subscription, 100)
    assert (subscription.status, subscription.connections) == (CONNECTED, {"phone": 100})
    subscriptions.remove_connection("phone")
    assert (subscription.status, subscription.connections) == (DISCONNECTED, {})
    assert subscriptions.request("desk", PRICE) is subscription
    assert subscription.status is PENDING
    subscriptions.fail(subscription)
    assert subscription.status is ERROR
    subscriptions.activate("desk", subscriptions.request("desk", PRICE), 0)
    subscriptions.fail(subscription)
    assert subscription.status is CONNECTED, "a connected subscription does not fail"


@pytest.mark.behaviour("B16", "B17", "B18", "B19", "B20")
def test_indexes_show_a_subscription_until_it_ends() -> None:
    subscriptions = Subscriptions()
    subscriptions.add_connection("a1", "acme", "ann")
    subscriptions.add_connection("b1", "acme", "bob")
    subscribe(subscriptions, "a1", PRICE, TRADES, USER)
    subscribe(subscriptions, "b1", PRICE, USER)
    assert [each.topic for each in subscriptions.of_user("acme", "ann")] == [PRICE, TRADES, USER]
    assert subscriptions.users_of("PRICE:BTCUSDT") == (("acme", "ann"), ("acme", "bob"))
    assert subscriptions.users_of(channel_for(USER, "acme", "ann")) == (("acme", "ann"),)
    assert list(subscriptions.connections_of("PRICE:BTCUSDT")) == ["a1", "b1"]
    assert len(subscriptions) == 5
    assert subscriptions.unsubscribe("a1", PRICE)
    assert not subscriptions.unsubscribe("a1", PRICE)
    assert [each.topic for each in subscriptions.of_user("acme", "ann")] == [TRADES, USER]
    assert subscriptions.users_of("PRICE:BTCUSDT") == (("acme", "bob"),)
    assert not subscriptions.is_subscribed("a1", "PRICE:BTCUSDT")
    assert not subscriptions.unsubscribe("nobody", PRICE)


@pytest.mark.behaviour("B21", "B22", "D43")
def test_subscriptions_stay_until_the_last_connection_goes() -> None:
    subscriptions = Subscriptions()
    for connection, user in (("phone", "ann"), ("desk", "ann"), ("b1", "bob")):
        subscriptions.add_connection(connection, "acme", user)
    subscribe(subscriptions, "phone", PRICE)
    subscribe(subscriptions, "b1", PRICE)
    assert subscriptions.remove_connection("phone") == ("PRICE:BTCUSDT",)
    [kept] = subscriptions.of_user("acme", "ann")
    assert (kept.topic, kept.connections) == (PRICE, {})
    assert subscriptions.remove_connection("desk") == ()
    assert subscriptions.of_user("acme", "ann") == ()
    assert subscriptions.users_of("PRICE:BTCUSDT") == (("acme", "bob"),)
    assert subscriptions.remove_connection("nobody") == ()


def test_oldest_idle_subscription_is_removed() -> None:
    subscriptions = Subscriptions(max_idle=2)
    subscriptions.add_connection("lasting", "acme", "ann")
    for number in range(5):
        subscriptions.add_connection("c", "acme", "ann")
        subscribe(subscriptions, "c", Topic(Stream.PRICE, f"S{number}"))
        subscriptions.remove_connection("c")
    assert [each.topic.symbol for each in subscriptions.of_user("acme", "ann")] == ["S3", "S4"]
    subscriptions.remove_connection("lasting")
    assert not any(vars(subscriptions)[name] for name in INDEXES)


INDEXES = ("_connections", "_owners", "_users", "_subscriptions", "_idle", "_channels", "_count")
connections = st.sampled_from(["a1", "a2", "b1"])
topics = st.sampled_from([PRICE, TRADES, USER])
OWNERS = {"a1": "ann", "a2": "ann", "b1": "bob"}


class SubscriptionsMachine(RuleBasedStateMachine):
    """Any sequence of operations, against a set of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Subscriptions()
        self.present: set[str] = set()
        self.pairs: set[tuple[str, Topic]] = set()

    @rule(who=connections, what=topics)
    def activate(self, who: str, what: Topic) -> None:
        self.real.add_connection(who, "acme", OWNERS[who])
        self.present.add(who)
        self.real.activate(who, self.real.request(who, what), 0)
        self.pairs.add((who, what))

    @rule(who=connections, what=topics)
    def unsubscribe(self, who: str, what: Topic) -> None:
        assert self.real.unsubscribe(who, what) == ((who, what) in self.pairs)
        self.pairs.discard((who, what))

    @rule(who=connections)
    def remove_connection(self, who: str) -> None:
        channels = self.real.remove_connection(who)
        assert len(channels) == len([what for each, what in self.pairs if each == who])
        self.pairs = {pair for pair in self.pairs if pair[0] != who}
        self.present.discard(who)

    @invariant()
    def indexes_agree(self) -> None:
        assert len(self.real) == len(self.pairs)
        for who in OWNERS:
            mine = {what for each, what in self.pairs if each == who}
            assert {each.topic for each in self.real.of_connection(who)} == mine
            assert self.real.count_of(who) == len(mine)
        for user in ("ann", "bob"):
            for subscription in self.real.of_user("acme", user):
                subscribed = {who for who, what in self.pairs if what == subscription.topic}
                assert set(subscription.connections) == {w for w in subscribed if OWNERS[w] == user}
                assert ("acme", user) in self.real.users_of(subscription.channel)
                assert (subscription.status is CONNECTED) == bool(subscription.connections)
        if not self.present:
            assert not any(vars(self.real)[name] for name in INDEXES)


SubscriptionsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_indexes_agree_after_any_sequence = pytest.mark.behaviour("D44", "D30", "D31")(
    SubscriptionsMachine.TestCase
)
