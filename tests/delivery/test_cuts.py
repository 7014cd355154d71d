"""Clients that are cut off anywhere and come back: exactly what they lack, again and again."""

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

# Small on purpose: a few messages fill them, and every step of the ladder is taken.
BUFFER_BYTES = 4096
BACKLOG = 12
TOPICS = ("PRICE:A", "PRICE:B", "ORDERBOOK:A", "TRADES:A", "TRADES:B", "USER_DATA")
topics = st.sampled_from(TOPICS)
names = st.sampled_from(["ann", "bob", "carl"])
KEPT_TOPICS = tuple(topic for topic in TOPICS if topic.partition(":")[0] in KEPT)
paces = st.sampled_from([0, 100, 1000])
levels = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), max_size=4)


class Belief:
    """What a client knows at one moment, from what it has read until then."""

    def __init__(self) -> None:
        self.views: dict[str, SubscriptionModel] = {}
        self.stale: dict[str, bool] = {}
        self.offset: str | None = None

    def hear(self, event: str, body: dict[str, Any], now_ms: int, times: list[int]) -> None:
        topic = topic_of(body)
        if event == "status":
            self.stale[topic] = body["state"] == "STALE"
        else:
            self.views[topic].receive(body, now_ms, times)


def topic_of(body: dict[str, Any]) -> str:
    return str(body["stream"]) + (f":{body['symbol']}" if body["symbol"] else "")


class Caller:
    """A client with offsets. What was written to it, it may have read, or only a part of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.link: RecordingLink | None = None
        # What it has certainly read, what was written since, and where that leads to.
        self.sure = Belief()
        self.log: list[tuple[str, dict[str, Any], str | None, int]] = []
        self.belief = Belief()
        # Topics of whose answers it does not know: no message of theirs can surprise it.
        self.unanswered: set[str] = set()
        self._writes = 0

    def connect(self, link: RecordingLink) -> None:
        self.link = link
        self._writes = 0

    def hear(self, now_ms: int, times: dict[str, list[int]]) -> None:
        link = self.link
        if link is None:
            return
        events = link.numbered_events(self._writes)
        self._writes = len(link.written)
        for event, body, offset in events:
            self._take(event, body, offset, now_ms, times)
            self.log.append((event, body, offset, now_ms))

    def answered(self) -> None:
        """It has an answer in its hands, and so has read all that was written before."""
        self.sure = copy.deepcopy(self.belief)
        self.log = []

    def lose(self, share: float, times: dict[str, list[int]]) -> None:
        """It was cut off, and has read only so much of what was written since."""
        self.link = None
        self.belief = copy.deepcopy(self.sure)
        for event, body, offset, now_ms in self.log[: round(share * len(self.log))]:
            self._take(event, body, offset, now_ms, times)
        self.answered()

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
        self.belief.offset = offset
        if topic in self.belief.views or event == "status":
            self.belief.hear(event, body, now_ms, times[topic])
        else:
            assert topic in self.unanswered, f"a message of {topic}, which it does not want"


class Cuts(RuleBasedStateMachine):
    """Delivery with recovery against what each client may believe."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        delivery = DeliveryConfig(
            buffer_bytes=BUFFER_BYTES, stalled_seconds=0, recoverable=True, backlog_messages=BACKLOG
        )
        subscribing = SubscribingConfig(backlog_messages=BACKLOG, max_reply_bytes=BUFFER_BYTES // 2)
        self.desk: MarketRig = self.run(MarketRig.create(delivery, STALE, subscribing=subscribing))
        self.here: dict[str, Caller] = {}
        self.away: dict[str, Caller] = {}
        self.past = PublishedLog(self.desk, self.run, TOPICS)
        self.resuming = ""
        for name, pace in (("ann", 0), ("bob", 0), ("carl", 100)):
            self.subscribe(name, list(TOPICS), pace, heard=True)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        if not hasattr(self, "desk"):
            return
        try:
            self.everything_arrives_in_the_end()
            for name in (*self.here, *self.away):
                self.run(self.desk.service.remove_connection(name))
            assert len(self.desk.subscriptions) == 0
            assert self.desk.hub.channels() == ()
            assert self.desk.hub.link_count == 0
            assert len(self.desk.hub.slow_consumers) == 0
        finally:
            self.loop.close()

    # --- what may happen

    @rule(topic=topics, count=st.integers(1, 9), each_in_its_turn=st.booleans())
    def publish(self, topic: str, count: int, each_in_its_turn: bool) -> None:
        self.past.publish(topic, count, each_in_its_turn=each_in_its_turn)

    @rule(bids=levels, asks=levels, kind=st.integers(0, 9))
    def change_book(
        self, bids: list[tuple[int, int]], asks: list[tuple[int, int]], kind: int
    ) -> None:
        self.past.change_book("A", bids, asks, kind)

    @rule(
        name=names,
        some=st.lists(topics, min_size=1, max_size=4),
        pace=paces,
        heard=st.sampled_from([True, True, True, False]),
    )
    def subscribe(self, name: str, some: list[str], pace: int, heard: bool) -> None:
        self.publish(some[0], 1, each_in_its_turn=False)
        if name in self.away:
            return
        if name not in self.here:
            self.here[name] = Caller(name)
            self.connect(name, self.desk.connect(name, numbered=True))
        caller = self.here[name]
        self.hear()
        mine = [topic for topic in some if topic != "USER_DATA" or name == "ann"]
        replies = self.run(self.desk.subscribe(name, *mine, interval_ms=pace))
        if name not in self.here:
            # It broke meanwhile: what it was made to hear until then, it was never told.
            caller.unanswered.update(mine)
            return
        self.hear()
        if not heard:
            # The answer is lost, and so is all that was written behind it.
            before = copy.deepcopy(caller.belief)
            caller.unanswered.update(mine)
            self.cut(name, 1.0)
            if name in self.away:
                assert self.away[name].belief.views.keys() == before.views.keys()
            return
        for topic, reply in orjson.loads(orjson.dumps(replies)).items():
            assert reply["seq"] == len(self.past.numbers[topic])
            caller.belief.views[topic] = SubscriptionModel(topic, reply)
            caller.unanswered.discard(topic)
        caller.answered()

    @rule(name=names, topic=topics)
    def unsubscribe(self, name: str, topic: str) -> None:
        if name in self.here:
            self.hear()
            caller = self.here[name]
            self.run(self.desk.service.unsubscribe(name, trader(name), [topic]))
            caller.belief.views.pop(topic, None)
            caller.belief.stale.pop(topic, None)
            caller.unanswered.discard(topic)
            caller.answered()

    @rule(name=names, topic=topics, count=st.integers(5, 20))
    def stall(self, name: str, topic: str, count: int) -> None:
        if name in self.here:
            self.link(name).stall()
            self.publish(topic, count, each_in_its_turn=True)

    @rule(name=names, size=st.integers(1, 6000))
    def read_some(self, name: str, size: int) -> None:
        if name in self.here:
            self.link(name).read(size)

    @rule(name=names)
    def read_on(self, name: str) -> None:
        if name in self.here:
            self.link(name).resume()

    @rule(name=names, share=st.floats(0, 1))
    def cut(self, name: str, share: float) -> None:
        if name in self.here:
            self.hear()
            self.desk.service.park(name)
            self.away[name] = self.here.pop(name)
            self.away[name].lose(share, self.past.times)

    @rule(name=names)
    def break_down(self, name: str) -> None:
        """The next write to it fails, and the transport says at once that it has ended."""
        if name in self.here:
            self.link(name).broken = True

    @rule(name=names, stalled=st.booleans(), size=st.integers(0, 4000), sound=st.integers(0, 9))
    def come_back(self, name: str, stalled: bool, size: int, sound: int = 1) -> None:
        if name not in self.away:
            return
        caller = self.away.pop(name)
        self.here[name] = caller
        link = self.desk.link()
        self.connect(name, link)
        if stalled:
            link.stall()
        for view in caller.belief.views.values():
            view.is_resumed = True
        caller.answered()
        lost = self.lost(caller)
        link.broken = not sound
        self.resuming = name
        recovered = self.desk.service.resume(name, trader(name), link, caller.belief.offset)
        self.resuming = ""
        if link.aborted or link.ended:
            # It broke down while it was sent what it lacked.
            assert recovered
            link.on_end()
            return
        if not recovered:
            assert lost, "all that it lacks is at hand"
            del self.here[name]
            self.run(self.desk.service.remove_connection(name))
            return
        self.hear()
        if not link.clogged:
            for topic, view in caller.belief.views.items():
                if topic in KEPT_TOPICS:
                    assert view.seq == len(self.past.numbers[topic]), "all of it comes at once"
        link.read(size)

    @rule(name=names, sure=st.integers(0, 3))
    def give_up(self, name: str, sure: int) -> None:
        if not sure and (name in self.here or name in self.away):
            self.here.pop(name, None)
            self.away.pop(name, None)
            self.run(self.desk.service.remove_connection(name))

    @rule()
    def turn(self) -> None:
        self.desk.run_scheduled()

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.3, 1.0, 4.0, 11.0, 16.0]))
    def pass_time(self, seconds: float) -> None:
        self.hear()
        self.desk.pass_time(seconds)

    # --- what must hold

    @invariant()
    def what_was_sent_keeps_the_promises_and_the_bounds(self) -> None:
        self.hear()
        for name in getattr(self, "here", ()):
            assert self.link(name).max_buffered_bytes <= BUFFER_BYTES

    @invariant()
    def nobody_who_is_away_stands_anywhere(self) -> None:
        for channel in self.desk.hub.channels() if hasattr(self, "desk") else ():
            listening = {client.id for client in channel.clients()}
            assert not listening & self.away.keys()
            assert {client.id for client in channel.parked} <= self.away.keys()

    def connect(self, name: str, link: RecordingLink) -> None:
        def ended() -> None:
            # The transport hears of the namespace only when it has answered the CONNECT.
            if name != self.resuming and name in self.here and self.here[name].link is link:
                self.desk.service.park(name)
                caller = self.away[name] = self.here.pop(name)
                caller.hear(self.past.now_ms(), self.past.times)
                # Of what was still unread, nothing arrives.
                caller.lose(0.5 if link.ended else 1.0, self.past.times)

        link.on_end = ended
        self.here[name].connect(link)

    def link(self, name: str) -> RecordingLink:
        link = self.here[name].link
        assert link is not None
        return link

    @staticmethod
    def channel_name(topic: str) -> str:
        return topic if ":" in topic else channel_for(Topic.parse(topic), "default", "ann")

    def lost(self, caller: Caller) -> bool:
        """Whether not all that it lacks is at hand any more."""
        client = self.desk.hub._registry.parked[caller.name]
        assert client.checkpoints is not None
        trail = client.checkpoints
        return (
            any(
                len(self.past.numbers[topic]) - view.seq > BACKLOG
                for topic, view in caller.belief.views.items()
                if topic in KEPT_TOPICS
            )
            or bool(trail._truncated)
            # What it lacks of a topic that it was never told of, only the server knows.
            or any(topic in KEPT_TOPICS for topic in caller.unanswered)
            # It may or may not have the answer that told it of another place.
            or any(answer.had_position for answer in trail._replies.values())
        )

    def everything_arrives_in_the_end(self) -> None:
        for name in self.here:
            self.link(name).broken = False
        for name in list(self.away):
            self.come_back(name, stalled=False, size=0)
        for name in self.here:
            self.link(name).resume()
        self.past.settle(self.hear)
        self.everybody_is_up_to_date()
        # And whoever seems to be up to date really goes on from there.
        for topic in TOPICS:
            self.publish(topic, 1, each_in_its_turn=False)
        self.change_book([(1, self.past.number % 3 + 1)], [], 1)
        self.past.settle(self.hear)
        self.everybody_is_up_to_date()

    def everybody_is_up_to_date(self) -> None:
        for caller in self.here.values():
            for topic, view in caller.belief.views.items():
                assert view.seq == len(self.past.numbers[topic]), topic
                self.last_value_is_right(topic, view)
                channel = self.desk.hub.channel(self.channel_name(topic))
                assert channel is not None
                is_stale = channel.stale_since_ms is not None
                assert caller.belief.stale.get(topic, False) == is_stale, topic

    def last_value_is_right(self, topic: str, view: SubscriptionModel) -> None:
        if view.stream == "ORDERBOOK":
            assert (view.bids, view.asks) == self.past.book(topic)
        elif self.past.numbers[topic] and view.value is not None:
            value: Any = view.value
            if view.stream == "PRICE":
                number = int(value["last"])
            else:
                number = value["number"] if topic == "USER_DATA" else value["trades"][0]["id"]
            assert number == self.past.numbers[topic][-1]

    def hear(self) -> None:
        for caller in getattr(self, "here", {}).values():
            caller.hear(self.past.now_ms(), self.past.times)


Cuts.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_cut_anywhere_again_and_again_nothing_is_lost_or_told_twice = pytest.mark.behaviour("E14")(
    pytest.mark.timeout(240)(Cuts.TestCase)
)
