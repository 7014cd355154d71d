"""Property test: any sequence of book changes, resets and stalls keeps each view right."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.core.errors import RequestError
from server.core.log.entries import Position
from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.delivery.view_client import Side, ViewClient, ViewModel
from tests.kit.rigs.market import MarketRig, trader
from tests.kit.rigs.market_cluster import NodeBroker, market_cluster

BUFFER_BYTES = 4096
SYMBOLS = ("A", "B")
VIEWS = ("1", "3", "200", "2/5", "3/2.5", "4/0.25")
clients = st.sampled_from(["ann", "bob", "carl"])
topics = st.sampled_from([f"ORDERBOOK:{symbol}@{view}" for symbol in SYMBOLS for view in VIEWS])
intervals = st.sampled_from([0, 0, 100, 1000])
# Prices of both sides overlap, so that the server refuses some updates.
levels = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=6)


class ViewMachine(RuleBasedStateMachine):
    """Views on two nodes against a model of each client."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.nodes: list[MarketRig] = self.run(
            market_cluster(
                2,
                DeliveryConfig(buffer_bytes=BUFFER_BYTES, stalled_seconds=0),
                SubscribingConfig(backlog_messages=8, max_reply_bytes=BUFFER_BYTES // 2),
            )
        )
        # The books at each position.
        self.books: dict[str, list[tuple[Side, Side]]] = {
            f"ORDERBOOK:{symbol}": [({}, {})] for symbol in SYMBOLS
        }
        self.clients: dict[str, tuple[MarketRig, ViewClient]] = {}

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        try:
            self.check_everything_arrives()
            for name, (node, _) in self.clients.items():
                self.run(node.service.remove_connection(name))
            for node in self.nodes:
                assert node.hub.channels() == ()
                assert len(node.subscriptions) == 0
        finally:
            self.loop.close()

    # --- rules

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        bids=levels,
        asks=levels,
        kind=st.integers(0, 9),
        publisher=st.integers(0, 1),
        decimals=st.integers(0, 2),
        flush=st.booleans(),
    )
    def change_book(
        self,
        symbol: str,
        bids: list[tuple[int, int]],
        asks: list[tuple[int, int]],
        kind: int,
        publisher: int,
        decimals: int,
        flush: bool,
    ) -> None:
        topic = f"ORDERBOOK:{symbol}"
        is_new = len(self.books[topic]) == 1
        zeros = "0" * decimals and "." + "0" * decimals
        new_bids, new_asks = (
            [(f"{price}{zeros}", str(quantity)) for price, quantity in dict(side).items()]
            for side in (bids, asks)
        )
        name = "snapshot" if is_new or not kind else "update"
        try:
            self.run(self.nodes[publisher].book(symbol, new_bids, new_asks, name))
        except RequestError:
            return
        before = self.books[topic][-1] if name == "update" else ({}, {})
        book = tuple(
            _applied(side, changed)
            for side, changed in zip(before, (new_bids, new_asks), strict=True)
        )
        self.books[topic].append((book[0], book[1]))
        if flush:
            self.turn()

    @rule(
        name=clients,
        some=st.lists(topics, min_size=1, max_size=4, unique=True),
        interval_ms=intervals,
        node=st.integers(0, 1),
    )
    def subscribe(self, name: str, some: list[str], interval_ms: int, node: int) -> None:
        rig, client = self.connected(name, node)
        self.receive_all()
        replies = self.run(rig.subscribe(name, *some, interval_ms=interval_ms))
        # Events written before the reply belong to the previous subscription.
        client.receive(self.books)
        for topic, reply in orjson.loads(orjson.dumps(replies)).items():
            assert reply["status"] == "CONNECTED"
            self.take_reply(rig, client, topic, reply)

    @rule(name=clients, node=st.integers(0, 1))
    def reconnect(self, name: str, node: int) -> None:
        """Come back on some node, with the old positions."""
        if name not in self.clients:
            return
        self.receive_all()
        old_node, before = self.clients.pop(name)
        self.run(old_node.service.remove_connection(name))
        rig, client = self.connected(name, node)
        since = {topic: Position(view.epoch, view.seq) for topic, view in before.views.items()}
        if not since:
            return
        replies = self.run(rig.service.subscribe(name, trader(name), since, since=since))
        for topic, reply in orjson.loads(orjson.dumps(replies)).items():
            if reply["recovered"] and reply["snapshot"] is None:
                # It has the state at this position; a snapshot that did not fit follows.
                client.views[topic] = before.views[topic]
                client.views[topic].seq = reply["seq"]
            else:
                self.take_reply(rig, client, topic, reply)

    @rule(name=clients, topic=topics)
    def unsubscribe(self, name: str, topic: str) -> None:
        if name in self.clients:
            rig, client = self.clients[name]
            self.receive_all()
            self.run(rig.service.unsubscribe(name, trader(name), [topic]))
            client.views.pop(topic, None)

    @rule(node=st.integers(0, 1))
    def cut(self, node: int) -> None:
        """One node misses what is published from now on."""
        broker = self.nodes[node].broker
        assert isinstance(broker, NodeBroker)
        broker.is_cut = True

    @rule(node=st.integers(0, 1))
    def reset(self, node: int) -> None:
        broker = self.nodes[node].broker
        assert isinstance(broker, NodeBroker)
        broker.reconnect()

    @rule(name=clients)
    def stall(self, name: str) -> None:
        if name in self.clients:
            self.clients[name][1].link.stall()

    @rule(name=clients)
    def resume(self, name: str) -> None:
        if name in self.clients:
            self.clients[name][1].link.resume()

    @rule()
    def turn(self) -> None:
        for node in self.nodes:
            node.run_scheduled()

    @rule(seconds=st.sampled_from([0.1, 1.0, 11.0, 16.0]))
    def pass_time(self, seconds: float) -> None:
        self.receive_all()
        self.nodes[0].clock.advance(seconds)
        for node in self.nodes:
            node.freshness.tick()
            node.hub.tick()

    # --- invariants

    @invariant()
    def received_messages_are_the_view_at_their_position(self) -> None:
        self.receive_all()

    def check_everything_arrives(self) -> None:
        for number in range(len(self.nodes)):
            self.reset(number)
        for _, client in self.clients.values():
            client.link.resume()
        for _ in range(3):
            for node in self.nodes:
                node.settle()
            self.pass_time(1.0)
        for _, client in self.clients.values():
            for topic, view in client.views.items():
                client.check(topic, self.books[view.source][-1])

    # --- helpers

    def connected(self, name: str, node: int) -> tuple[MarketRig, ViewClient]:
        if name not in self.clients:
            rig = self.nodes[node]
            self.clients[name] = (rig, ViewClient(rig.connect(name)))
        return self.clients[name]

    def take_reply(
        self, rig: MarketRig, client: ViewClient, topic: str, reply: dict[str, Any]
    ) -> None:
        view = client.views[topic] = ViewModel(topic, reply)
        channel = rig.hub.channel(view.source)
        assert channel is not None
        assert view.seq == channel.state.position.seq, "a view has the position of its source"
        if reply["snapshot"] is not None:
            client.check(topic, self.books[view.source][view.seq])
        elif view.seq:
            # It did not fit, and follows as a message.
            view.is_resynced = True

    def receive_all(self) -> None:
        for _, client in self.clients.values():
            client.receive(self.books)


def _applied(side: Side, changed: list[tuple[str, str]]) -> Side:
    """A side after a change; a level keeps the spelling of its price."""
    result = dict(side)
    for price, quantity in changed:
        known = next((each for each in result if float(each) == float(price)), price)
        if quantity == "0":
            result.pop(known, None)
        else:
            result[known] = quantity
    return result


ViewMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_any_sequence_keeps_views_right = pytest.mark.timeout(480)(ViewMachine.TestCase)
