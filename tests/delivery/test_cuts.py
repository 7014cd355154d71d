"""Property test: disconnected clients resume and receive exactly what they missed."""

import asyncio
import copy
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.core.market.topics import Topic, channel_for
from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.delivery.client_model import KEPT, SubscriptionModel
from tests.delivery.published import PublishedLog
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import STALE, MarketRig, trader

# Small, so that a few messages reach every stage of slow consumer handling.
BUFFER_BYTES = 4096
BACKLOG = 12
TOPICS = ("PRICE:A", "PRICE:B", "ORDERBOOK:A", "TRADES:A", "TRADES:B", "USER_DATA")
topics = st.sampled_from(TOPICS)
names = st.sampled_from(["ann", "bob", "carl"])
KEPT_TOPICS = tuple(topic for topic in TOPICS if topic.partition(":")[0] in KEPT)
intervals = st.sampled_from([0, 100, 1000])
levels = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), max_size=4)


class Knowledge:
    """What a client knows from the events it has read."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, SubscriptionModel] = {}
        self.stale: dict[str, bool] = {}
        self.offset: str | None = None

    def receive(self, event: str, body: dict[str, Any], now_ms: int, times: list[int]) -> None:
        topic = topic_of(body)
        if event == "status":
            self.stale[topic] = body["state"] == "STALE"
        else:
            self.subscriptions[topic].receive(body, now_ms, times)


def topic_of(body: dict[str, Any]) -> str:
    return str(body["stream"]) + (f":{body['symbol']}" if body["symbol"] else "")


class ModelClient:
    """A client with offsets that may have read only a part of what was written to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.link: RecordingLink | None = None
        # What it has certainly read, the events written since, and both together.
        self.confirmed = Knowledge()
        self.log: list[tuple[str, dict[str, Any], str | None, int]] = []
        self.known = Knowledge()
        # Topics whose subscribe reply it did not get: it ignores their messages.
        self.unanswered: set[str] = set()
        self._writes = 0

    def connect(self, link: RecordingLink) -> None:
        self.link = link
        self._writes = 0

    def receive(self, now_ms: int, times: dict[str, list[int]]) -> None:
        link = self.link
        if link is None:
            return
        events = link.numbered_events(self._writes)
        self._writes = len(link.written)
        for event, body, offset in events:
            self._take(event, body, offset, now_ms, times)
            self.log.append((event, body, offset, now_ms))

    def record_reply(self) -> None:
        """Record a received reply: everything written before it is read too."""
        self.confirmed = copy.deepcopy(self.known)
        self.log = []

    def disconnect(self, share: float, times: dict[str, list[int]]) -> None:
        """Disconnect after reading a share of the events written since the last reply."""
        self.link = None
        self.known = copy.deepcopy(self.confirmed)
        for event, body, offset, now_ms in self.log[: round(share * len(self.log))]:
            self._take(event, body, offset, now_ms, times)
        self.record_reply()

    def _take(
        self,
        event: str,
        body: dict[str, Any],
        offset: str | None,
        now_ms: int,
        times: dict[str, list[int]],
    ) -> None:
        topic = topic_of(body)
        assert offset is not None
        self.known.offset = offset
        if topic in self.known.subscriptions or event == "status":
            self.known.receive(event, body, now_ms, times[topic])
        else:
            assert topic in self.unanswered, f"a message of {topic} without a subscription"


class ResumeMachine(RuleBasedStateMachine):
    """Delivery with recovery against a model of each client."""

    @initialize(max_slice_writes=st.sampled_from([1, 2, 1000]))
    def open(self, max_slice_writes: int) -> None:
        self.loop = asyncio.new_event_loop()
        delivery = DeliveryConfig(
            buffer_bytes=BUFFER_BYTES,
            stalled_seconds=0,
            recoverable=True,
            backlog_messages=BACKLOG,
            max_slice_writes=max_slice_writes,
        )
        subscribing = SubscribingConfig(backlog_messages=BACKLOG, max_reply_bytes=BUFFER_BYTES // 2)
        self.rig: MarketRig = self.run(MarketRig.create(delivery, STALE, subscribing=subscribing))
        self.connected: dict[str, ModelClient] = {}
        self.parked: dict[str, ModelClient] = {}
        self.published = PublishedLog(self.rig, self.run, TOPICS)
        self.resuming = ""
        for name, interval_ms in (("ann", 0), ("bob", 0), ("carl", 100)):
            self.subscribe(name, list(TOPICS), interval_ms, reply_arrives=True)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        try:
            self.check_everything_arrives()
            for name in (*self.connected, *self.parked):
                self.run(self.rig.service.remove_connection(name))
            assert len(self.rig.subscriptions) == 0
            assert self.rig.hub.channels() == ()
            assert self.rig.hub.link_count == 0
            assert len(self.rig.hub.slow_consumers) == 0
        finally:
            self.loop.close()

    # --- rules

    @rule(topic=topics, count=st.integers(1, 9), flush_each=st.booleans())
    def publish(self, topic: str, count: int, flush_each: bool) -> None:
        self.published.publish(topic, count, flush_each=flush_each)

    @rule(bids=levels, asks=levels, kind=st.integers(0, 9))
    def change_book(
        self, bids: list[tuple[int, int]], asks: list[tuple[int, int]], kind: int
    ) -> None:
        self.published.change_book("A", bids, asks, kind)

    @rule(
        name=names,
        some=st.lists(topics, min_size=1, max_size=4),
        interval_ms=intervals,
        reply_arrives=st.sampled_from([True, True, True, False]),
    )
    def subscribe(self, name: str, some: list[str], interval_ms: int, reply_arrives: bool) -> None:
        self.publish(some[0], 1, flush_each=False)
        if name in self.parked:
            return
        if name not in self.connected:
            self.connected[name] = ModelClient(name)
            self.connect(name, self.rig.connect(name, numbered=True))
        model = self.connected[name]
        self.receive()
        mine = [topic for topic in some if topic != "USER_DATA" or name == "ann"]
        replies = self.run(self.rig.subscribe(name, *mine, interval_ms=interval_ms))
        if name in self.connected:
            self.link(name).reply()
        if name not in self.connected:
            # Its link broke meanwhile: it never got the reply.
            model.unanswered.update(mine)
            return
        self.receive()
        if not reply_arrives:
            # The reply is lost, and with it all that was written after it.
            before = copy.deepcopy(model.known)
            model.unanswered.update(mine)
            self.cut(name, 1.0)
            if name in self.parked:
                assert self.parked[name].known.subscriptions.keys() == before.subscriptions.keys()
            return
        for topic, reply in orjson.loads(orjson.dumps(replies)).items():
            assert reply["seq"] == len(self.published.numbers[topic])
            model.known.subscriptions[topic] = SubscriptionModel(topic, reply)
            model.unanswered.discard(topic)
        model.record_reply()

    @rule(name=names, topic=topics)
    def unsubscribe(self, name: str, topic: str) -> None:
        if name in self.connected:
            self.receive()
            model = self.connected[name]
            self.run(self.rig.service.unsubscribe(name, trader(name), [topic]))
            if name in self.connected:
                self.link(name).reply()
            self.receive()
            model.known.subscriptions.pop(topic, None)
            model.known.stale.pop(topic, None)
            model.unanswered.discard(topic)
            model.record_reply()

    @rule(name=names, topic=topics, count=st.integers(5, 20))
    def stall(self, name: str, topic: str, count: int) -> None:
        if name in self.connected:
            self.link(name).stall()
            self.publish(topic, count, flush_each=True)

    @rule(name=names, size=st.integers(1, 6000))
    def read_some(self, name: str, size: int) -> None:
        if name in self.connected:
            self.link(name).read(size)

    @rule(name=names)
    def resume_reading(self, name: str) -> None:
        if name in self.connected:
            self.link(name).resume()

    @rule(name=names, share=st.floats(0, 1))
    def cut(self, name: str, share: float) -> None:
        if name in self.connected:
            self.receive()
            self.rig.park(name)
            self.parked[name] = self.connected.pop(name)
            self.parked[name].disconnect(share, self.published.times)

    @rule(name=names)
    def break_link(self, name: str) -> None:
        """Make the next write fail; the transport reports the end at once."""
        if name in self.connected:
            self.link(name).broken = True

    @rule(name=names, stalled=st.booleans(), size=st.integers(0, 4000), intact=st.integers(0, 9))
    def resume(self, name: str, stalled: bool, size: int, intact: int = 1) -> None:
        if name not in self.parked:
            return
        model = self.parked.pop(name)
        self.connected[name] = model
        link = self.rig.link()
        self.connect(name, link)
        if stalled:
            link.stall()
        for subscription in model.known.subscriptions.values():
            subscription.is_resumed = True
        model.record_reply()
        is_gone = self.is_history_gone(model)
        link.broken = not intact
        self.resuming = name
        recovered = self.rig.resume(name, link, model.known.offset)
        self.resuming = ""
        if link.aborted or link.ended:
            # Its link broke while it caught up.
            assert recovered
            link.on_end()
            return
        if not recovered:
            assert is_gone, "not recovered, though nothing is lost"
            del self.connected[name]
            self.run(self.rig.service.remove_connection(name))
            return
        self.receive()
        if not link.clogged:
            for topic, subscription in model.known.subscriptions.items():
                if topic in KEPT_TOPICS:
                    assert subscription.seq == len(self.published.numbers[topic]), (
                        "did not catch up at once"
                    )
        link.read(size)

    @rule(name=names, dice=st.integers(0, 3))
    def leave(self, name: str, dice: int) -> None:
        if not dice and (name in self.connected or name in self.parked):
            self.connected.pop(name, None)
            self.parked.pop(name, None)
            self.run(self.rig.service.remove_connection(name))

    @rule()
    def turn(self) -> None:
        self.rig.run_scheduled()

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.3, 1.0, 4.0, 11.0, 16.0]))
    def pass_time(self, seconds: float) -> None:
        for name in list(self.connected):
            # Held frames do not wait for long.
            self.link(name).reply()
        self.receive()
        self.rig.pass_time(seconds)

    # --- invariants

    @invariant()
    def received_events_keep_the_contract_and_the_bounds(self) -> None:
        self.receive()
        for name in getattr(self, "connected", ()):
            assert self.link(name).max_buffered_bytes <= BUFFER_BYTES

    @invariant()
    def parked_clients_are_in_no_tier(self) -> None:
        for channel in self.rig.hub.channels() if hasattr(self, "rig") else ():
            listening = {client.id for client in channel.clients()}
            assert not listening & self.parked.keys()
            assert set(channel.parked_ids()) <= self.parked.keys()

    def connect(self, name: str, link: RecordingLink) -> None:
        def ended() -> None:
            # During a resume the CONNECT packet is not answered yet: no namespace to leave.
            if (
                name != self.resuming
                and name in self.connected
                and self.connected[name].link is link
            ):
                self.rig.park(name)
                model = self.parked[name] = self.connected.pop(name)
                model.receive(self.published.now_ms(), self.published.times)
                # The unread bytes never arrive.
                model.disconnect(0.5 if link.ended else 1.0, self.published.times)

        link.on_end = ended
        self.connected[name].connect(link)

    def link(self, name: str) -> RecordingLink:
        link = self.connected[name].link
        assert link is not None
        return link

    @staticmethod
    def channel_name(topic: str) -> str:
        return topic if ":" in topic else channel_for(Topic.parse(topic), "default", "ann")

    def is_history_gone(self, model: ModelClient) -> bool:
        """Whether some of what the client missed is gone."""
        client = self.rig.hub._registry.parked[model.name]
        trails = [each.checkpoints for each in client.subscriptions.values()]
        return (
            any(
                len(self.published.numbers[topic]) - subscription.seq > BACKLOG
                for topic, subscription in model.known.subscriptions.items()
                if topic in KEPT_TOPICS
            )
            or any(trail is not None and trail._is_truncated for trail in trails)
            # Of a topic without a reply, only the server knows what the client missed.
            or any(topic in KEPT_TOPICS for topic in model.unanswered)
            # It may or may not have got the reply with its new position.
            or any(trail is not None and trail._had_position for trail in trails)
        )

    def check_everything_arrives(self) -> None:
        for name in self.connected:
            self.link(name).broken = False
        for name in list(self.parked):
            self.resume(name, stalled=False, size=0)
        for name in self.connected:
            self.link(name).resume()
        self.published.settle(self.receive)
        self.check_up_to_date()
        # And clients that seem up to date receive what follows.
        for topic in TOPICS:
            self.publish(topic, 1, flush_each=False)
        self.change_book([(1, self.published.number % 3 + 1)], [], 1)
        self.published.settle(self.receive)
        self.check_up_to_date()

    def check_up_to_date(self) -> None:
        for model in self.connected.values():
            for topic, subscription in model.known.subscriptions.items():
                assert subscription.seq == len(self.published.numbers[topic]), topic
                self.check_last_value(topic, subscription)
                channel = self.rig.hub.channel(self.channel_name(topic))
                assert channel is not None
                is_stale = channel.stale_since_ms is not None
                assert model.known.stale.get(topic, False) == is_stale, topic

    def check_last_value(self, topic: str, subscription: SubscriptionModel) -> None:
        if subscription.stream == "ORDERBOOK":
            assert (subscription.bids, subscription.asks) == self.published.book(topic)
        elif self.published.numbers[topic] and subscription.value is not None:
            value: Any = subscription.value
            if subscription.stream == "PRICE":
                number = int(value["last"])
            else:
                number = value["number"] if topic == "USER_DATA" else value["trades"][0]["id"]
            assert number == self.published.numbers[topic][-1]

    def receive(self) -> None:
        for model in getattr(self, "connected", {}).values():
            model.receive(self.published.now_ms(), self.published.times)


ResumeMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_resumed_clients_lose_nothing_and_get_nothing_twice = pytest.mark.behaviour("E14")(
    pytest.mark.timeout(240)(ResumeMachine.TestCase)
)
