"""Any mix of publishing, stalling, reading, subscribing, pacing and leaving keeps the promises."""

import asyncio
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.core.log.entries import Position
from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.delivery.client_model import KEPT, ClientModel, SubscriptionModel
from tests.delivery.published import PublishedLog
from tests.kit.rigs.market import STALE, MarketRig, trader

# Small on purpose: a few messages fill them, and every step of the ladder is taken.
BUFFER_BYTES = 4096
BACKLOG = 12
TOPICS = ("PRICE:A", "PRICE:B", "ORDERBOOK:A", "ORDERBOOK:B", "TRADES:A", "USER_DATA")
topics = st.sampled_from(TOPICS)
clients = st.sampled_from(["ann", "bob", "carl"])
paces = st.sampled_from([0, 100, 250, 1000])
# Prices of both sides overlap, so that some updates are refused.
levels = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), max_size=5)


class Market(RuleBasedStateMachine):
    """Outboxes and clients against a model of what each client may believe."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        delivery = DeliveryConfig(buffer_bytes=BUFFER_BYTES, stalled_seconds=0)
        subscribing = SubscribingConfig(backlog_messages=BACKLOG, max_reply_bytes=BUFFER_BYTES // 2)
        self.desk: MarketRig = self.run(MarketRig.create(delivery, STALE, subscribing=subscribing))
        self.readers: dict[str, ClientModel] = {}
        self.past = PublishedLog(self.desk, self.run, TOPICS)
        for name, pace in (("ann", 0), ("bob", 0), ("carl", 100)):
            self.subscribe(name, list(TOPICS), pace)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        if not hasattr(self, "desk"):
            return
        try:
            self.everything_arrives_in_the_end()
            for name in list(self.readers):
                self.run(self.desk.service.remove_connection(name))
            assert len(self.desk.subscriptions) == 0
            assert self.desk.hub.channels() == ()
            assert len(self.desk.hub.slow_consumers) == 0
        finally:
            self.loop.close()

    # --- what may happen

    @rule(topic=topics, count=st.integers(1, 30), each_in_its_turn=st.booleans())
    def publish(self, topic: str, count: int, each_in_its_turn: bool) -> None:
        self.past.publish(topic, count, each_in_its_turn=each_in_its_turn)

    @rule(symbol=st.sampled_from("AB"), bids=levels, asks=levels, kind=st.integers(0, 9))
    def change_book(
        self,
        symbol: str,
        bids: list[tuple[int, int]],
        asks: list[tuple[int, int]],
        kind: int,
    ) -> None:
        if self.past.change_book(symbol, bids, asks, kind):
            self.desk.run_scheduled()

    @rule(name=clients, some=st.lists(topics, min_size=1, max_size=4), pace=paces)
    def subscribe(self, name: str, some: list[str], pace: int) -> None:
        # In the middle of a turn, when a message is on its way to those who listen already.
        self.publish(some[0], 1, each_in_its_turn=False)
        if name not in self.readers:
            self.readers[name] = ClientModel(self.desk.connect(name))
        reader = self.readers[name]
        self.hear()
        mine = [topic for topic in some if topic != "USER_DATA" or name == "ann"]
        replies = self.run(self.desk.subscribe(name, *mine, interval_ms=pace))
        # Whatever was written before the answer belongs to what it was subscribed to before.
        self.hear()
        for topic, reply in orjson.loads(orjson.dumps(replies)).items():
            assert reply["status"] == "CONNECTED"
            assert reply["seq"] == len(self.past.numbers[topic])
            reader.subscriptions[topic] = SubscriptionModel(topic, reply)

    @rule(name=clients, topic=topics)
    def unsubscribe(self, name: str, topic: str) -> None:
        if name in self.readers:
            self.hear()
            self.run(self.desk.service.unsubscribe(name, trader(name), [topic]))
            self.readers[name].subscriptions.pop(topic, None)

    @rule(name=clients, topic=topics, count=st.integers(10, 40))
    def stall(self, name: str, topic: str, count: int) -> None:
        if name in self.readers:
            self.readers[name].link.stall()
            self.publish(topic, count, each_in_its_turn=True)

    @rule(name=clients, topic=topics, rounds=st.integers(2, 6))
    def struggle(self, name: str, topic: str, rounds: int) -> None:
        for _ in range(rounds):
            self.stall(name, topic, 12)
            if name in self.readers:
                self.readers[name].link.read()
            self.turn()

    @rule(name=clients, size=st.integers(1, 6000))
    def read_some(self, name: str, size: int) -> None:
        if name in self.readers:
            self.readers[name].link.read(size)

    @rule(name=clients)
    def resume(self, name: str) -> None:
        if name in self.readers:
            self.readers[name].link.resume()

    @rule(name=clients, sure=st.integers(0, 3))
    def leave(self, name: str, sure: int) -> None:
        if name in self.readers and not sure:
            del self.readers[name]
            self.run(self.desk.service.remove_connection(name))

    @rule(name=clients, topic=topics, count=st.integers(0, 20))
    def reconnect(self, name: str, topic: str, count: int) -> None:
        """Be cut off, miss something, and come back with the positions of before."""
        if name not in self.readers:
            return
        self.hear()
        before = self.readers.pop(name)
        self.run(self.desk.service.remove_connection(name))
        self.publish(topic, count, each_in_its_turn=True)
        reader = self.readers[name] = ClientModel(self.desk.connect(name))
        since = {
            each: Position(view.epoch, view.seq) for each, view in before.subscriptions.items()
        }
        replies = self.run(self.desk.service.subscribe(name, trader(name), since, since=since))
        for each, reply in orjson.loads(orjson.dumps(replies)).items():
            reader.subscriptions[each] = before.subscriptions[each].resume(reply)

    @rule(name=clients, sure=st.integers(0, 3))
    def break_down(self, name: str, sure: int) -> None:
        if name in self.readers and not sure:
            self.readers[name].link.broken = True

    @rule()
    def turn(self) -> None:
        self.desk.run_scheduled()

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.3, 1.0, 4.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.hear()
        self.desk.pass_time(seconds)

    # --- what must hold

    @invariant()
    def what_was_sent_keeps_the_promises_and_the_bounds(self) -> None:
        for name, reader in list(getattr(self, "readers", {}).items()):
            if reader.link.aborted:
                # The transport would have told the server so by now.
                del self.readers[name]
                self.run(self.desk.service.remove_connection(name))
                continue
            reader.receive(self.past.now_ms(), self.past.times)
            assert reader.link.max_buffered_bytes <= BUFFER_BYTES

    def everything_arrives_in_the_end(self) -> None:
        for reader in self.readers.values():
            reader.link.broken = False
            reader.link.resume()
        self.past.settle(self.hear)
        self.everybody_is_up_to_date()
        # And whoever seems to be up to date really goes on from there.
        for topic in TOPICS:
            self.publish(topic, 1, each_in_its_turn=False)
        for symbol in "AB":
            self.change_book(symbol, [(1, self.past.number % 3 + 1)], [], 1)
        self.past.settle(self.hear)
        self.everybody_is_up_to_date()

    def everybody_is_up_to_date(self) -> None:
        for reader in self.readers.values():
            for topic, view in reader.subscriptions.items():
                assert view.seq == len(self.past.numbers[topic]), topic
                self.last_value_is_right(topic, view)

    def hear(self) -> None:
        for name in list(self.readers):
            self.readers[name].receive(self.past.now_ms(), self.past.times)

    def last_value_is_right(self, topic: str, view: SubscriptionModel) -> None:
        if view.stream == "ORDERBOOK":
            bids, asks = self.past.book(topic)
            assert (view.bids, view.asks) == (bids, asks)
            assert not bids or not asks or max(map(Decimal, bids)) < min(map(Decimal, asks))
        elif view.value is None and view.stream in KEPT:
            # Its last message did not fit into the answer, and nothing has come since.
            assert view.seq == len(self.past.numbers[topic])
        elif self.past.numbers[topic]:
            last = self.past.numbers[topic][-1]
            value: Any = view.value
            if view.stream == "PRICE":
                assert value["last"] == str(last)
            elif view.stream == "TRADES":
                assert value["trades"][0]["id"] == last
            else:
                assert value["number"] == last
        assert view.stream in KEPT or view.loss_count == 0


Market.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_any_sequence_keeps_the_promises = pytest.mark.behaviour("C10", "C11", "D28", "D42")(
    # Under coverage it takes a good while.
    pytest.mark.timeout(480)(Market.TestCase)
)
