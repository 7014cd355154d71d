"""Property test: any sequence of client and feed actions keeps the delivery contract."""

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

# Small, so that a few messages reach every stage of slow consumer handling.
BUFFER_BYTES = 4096
BACKLOG = 12
TOPICS = ("PRICE:A", "PRICE:B", "ORDERBOOK:A", "ORDERBOOK:B", "TRADES:A", "USER_DATA")
topics = st.sampled_from(TOPICS)
clients = st.sampled_from(["ann", "bob", "carl"])
intervals = st.sampled_from([0, 100, 250, 1000])
# Prices of both sides overlap, so that the server refuses some updates.
levels = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), max_size=5)


class DeliveryMachine(RuleBasedStateMachine):
    """Delivery against a model of each client."""

    @initialize(max_slice_writes=st.sampled_from([1, 2, 1000]))
    def open(self, max_slice_writes: int) -> None:
        self.loop = asyncio.new_event_loop()
        delivery = DeliveryConfig(
            buffer_bytes=BUFFER_BYTES, stalled_seconds=0, max_slice_writes=max_slice_writes
        )
        subscribing = SubscribingConfig(backlog_messages=BACKLOG, max_reply_bytes=BUFFER_BYTES // 2)
        self.rig: MarketRig = self.run(MarketRig.create(delivery, STALE, subscribing=subscribing))
        self.readers: dict[str, ClientModel] = {}
        self.published = PublishedLog(self.rig, self.run, TOPICS)
        for name, interval_ms in (("ann", 0), ("bob", 0), ("carl", 100)):
            self.subscribe(name, list(TOPICS), interval_ms)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        try:
            self.check_everything_arrives()
            for name in list(self.readers):
                self.run(self.rig.service.remove_connection(name))
            assert len(self.rig.subscriptions) == 0
            assert self.rig.hub.channels() == ()
            assert len(self.rig.hub.slow_consumers) == 0
        finally:
            self.loop.close()

    # --- rules

    @rule(topic=topics, count=st.integers(1, 30), flush_each=st.booleans())
    def publish(self, topic: str, count: int, flush_each: bool) -> None:
        self.published.publish(topic, count, flush_each=flush_each)

    @rule(symbol=st.sampled_from("AB"), bids=levels, asks=levels, kind=st.integers(0, 9))
    def change_book(
        self,
        symbol: str,
        bids: list[tuple[int, int]],
        asks: list[tuple[int, int]],
        kind: int,
    ) -> None:
        if self.published.change_book(symbol, bids, asks, kind):
            self.rig.run_scheduled()

    @rule(name=clients, some=st.lists(topics, min_size=1, max_size=4), interval_ms=intervals)
    def subscribe(self, name: str, some: list[str], interval_ms: int) -> None:
        # In the middle of a turn, with a message pending for the subscribers.
        self.publish(some[0], 1, flush_each=False)
        if name not in self.readers:
            self.readers[name] = ClientModel(self.rig.connect(name))
        reader = self.readers[name]
        self.receive_all()
        mine = [topic for topic in some if topic != "USER_DATA" or name == "ann"]
        replies = self.run(self.rig.subscribe(name, *mine, interval_ms=interval_ms))
        # Events written before the reply belong to the previous subscription.
        reader.link.reply()
        if reader.link.aborted:
            return
        self.receive_all()
        for topic, reply in orjson.loads(orjson.dumps(replies)).items():
            assert reply["status"] == "CONNECTED"
            assert reply["seq"] == len(self.published.numbers[topic])
            reader.subscriptions[topic] = SubscriptionModel(topic, reply)

    @rule(name=clients, topic=topics)
    def unsubscribe(self, name: str, topic: str) -> None:
        if name in self.readers:
            self.receive_all()
            self.run(self.rig.service.unsubscribe(name, trader(name), [topic]))
            self.readers[name].link.reply()
            self.receive_all()
            self.readers[name].subscriptions.pop(topic, None)

    @rule(name=clients, topic=topics, count=st.integers(10, 40))
    def stall(self, name: str, topic: str, count: int) -> None:
        if name in self.readers:
            self.readers[name].link.stall()
            self.publish(topic, count, flush_each=True)

    @rule(name=clients, topic=topics, rounds=st.integers(2, 6))
    def stall_repeatedly(self, name: str, topic: str, rounds: int) -> None:
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

    @rule(name=clients, dice=st.integers(0, 3))
    def leave(self, name: str, dice: int) -> None:
        if name in self.readers and not dice:
            del self.readers[name]
            self.run(self.rig.service.remove_connection(name))

    @rule(name=clients, topic=topics, count=st.integers(0, 20))
    def reconnect(self, name: str, topic: str, count: int) -> None:
        """Disconnect, miss something, and subscribe again with the old positions."""
        if name not in self.readers:
            return
        self.receive_all()
        before = self.readers.pop(name)
        self.run(self.rig.service.remove_connection(name))
        self.publish(topic, count, flush_each=True)
        reader = self.readers[name] = ClientModel(self.rig.connect(name))
        since = {
            each: Position(subscription.epoch, subscription.seq)
            for each, subscription in before.subscriptions.items()
        }
        replies = self.run(self.rig.service.subscribe(name, trader(name), since, since=since))
        for each, reply in orjson.loads(orjson.dumps(replies)).items():
            reader.subscriptions[each] = before.subscriptions[each].resume(reply)

    @rule(name=clients, dice=st.integers(0, 3))
    def break_link(self, name: str, dice: int) -> None:
        if name in self.readers and not dice:
            self.readers[name].link.broken = True

    @rule()
    def turn(self) -> None:
        self.rig.run_scheduled()

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.3, 1.0, 4.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        for reader in self.readers.values():
            # Held frames do not wait for long.
            reader.link.reply()
        self.receive_all()
        self.rig.pass_time(seconds)

    # --- invariants

    @invariant()
    def received_events_keep_the_contract_and_the_bounds(self) -> None:
        for name, reader in list(getattr(self, "readers", {}).items()):
            if reader.link.aborted:
                # The transport would have reported the end by now.
                del self.readers[name]
                self.run(self.rig.service.remove_connection(name))
                continue
            reader.receive(self.published.now_ms(), self.published.times)
            assert reader.link.max_buffered_bytes <= BUFFER_BYTES

    def check_everything_arrives(self) -> None:
        for reader in self.readers.values():
            reader.link.broken = False
            reader.link.resume()
        self.published.settle(self.receive_all)
        self.check_up_to_date()
        # And clients that seem up to date receive what follows.
        for topic in TOPICS:
            self.publish(topic, 1, flush_each=False)
        for symbol in "AB":
            self.change_book(symbol, [(1, self.published.number % 3 + 1)], [], 1)
        self.published.settle(self.receive_all)
        self.check_up_to_date()

    def check_up_to_date(self) -> None:
        for reader in self.readers.values():
            for topic, subscription in reader.subscriptions.items():
                assert subscription.seq == len(self.published.numbers[topic]), topic
                self.check_last_value(topic, subscription)

    def receive_all(self) -> None:
        for name in list(self.readers):
            self.readers[name].receive(self.published.now_ms(), self.published.times)

    def check_last_value(self, topic: str, subscription: SubscriptionModel) -> None:
        if subscription.stream == "ORDERBOOK":
            bids, asks = self.published.book(topic)
            assert (subscription.bids, subscription.asks) == (bids, asks)
            assert not bids or not asks or max(map(Decimal, bids)) < min(map(Decimal, asks))
        elif subscription.value is None and subscription.stream in KEPT:
            # Its last message did not fit into the reply, and nothing has come since.
            assert subscription.seq == len(self.published.numbers[topic])
        elif self.published.numbers[topic]:
            last = self.published.numbers[topic][-1]
            value: Any = subscription.value
            if subscription.stream == "PRICE":
                assert value["last"] == str(last)
            elif subscription.stream == "TRADES":
                assert value["trades"][0]["id"] == last
            else:
                assert value["number"] == last
        assert subscription.stream in KEPT or subscription.loss_count == 0


DeliveryMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_any_sequence_keeps_the_contract = pytest.mark.behaviour("C10", "C11", "D28", "D42")(
    # Slow under coverage.
    pytest.mark.timeout(480)(DeliveryMachine.TestCase)
)
