"""Subscribing without sockets: what a newcomer hears, and who has gone meanwhile."""

from collections.abc import Callable

from server.access import Principal
from server.brokers import MemoryBroker
from server.core.subscriptions import Subscriptions
from server.delivery import Fanout
from server.services import PublishingService, SubscribingService
from tests.kit.clock import ManualClock
from tests.kit.links import RecordingLink
from tests.kit.running import PRICE

ANN = Principal("ann", "acme", frozenset({"market:read"}), expires_at=1e12)


class Desk:
    """Broker, fan-out and services, with a loop whose turns the test decides on."""

    def __init__(self, *, max_buffered_bytes: int = 1000) -> None:
        self.turns: list[Callable[[], None]] = []
        self.broker = MemoryBroker(epoch="e1")
        self.subscriptions = Subscriptions()
        self.fanout = Fanout(
            self.subscriptions,
            schedule=self.turns.append,
            max_buffered_bytes=max_buffered_bytes,
        )
        self.publishing = PublishingService(self.broker, ManualClock(), max_message_bytes=4096)
        self.service = SubscribingService(
            self.broker, self.subscriptions, self.fanout, max_topics=10
        )

    async def client(self, name: str, *topics: str) -> RecordingLink:
        link = RecordingLink()
        self.service.enter(name, link)
        await self.service.subscribe(name, ANN, topics)
        return link

    def turn(self) -> None:
        """What the loop does between two callbacks."""
        turns, self.turns[:] = list(self.turns), []
        for each in turns:
            each()


async def desk() -> Desk:
    made = Desk()
    await made.broker.start(made.fanout.deliver)
    return made


async def test_what_is_published_in_one_turn_is_one_write_shared_by_all() -> None:
    floor = await desk()
    ann, bob = await floor.client("ann", "PRICE:A"), await floor.client("bob", "PRICE:A")
    for _ in range(3):
        await floor.publishing.publish("PRICE:A", PRICE)
    assert ann.written == []
    assert len(floor.turns) == 1
    floor.turn()
    assert len(ann.written) == 1
    assert ann.written[0] is bob.written[0]
    assert [ann.written[0].count(b'"seq":%d' % seq) for seq in (1, 2, 3)] == [1, 1, 1]


async def test_who_subscribes_before_the_turn_ends_hears_the_snapshot_and_not_the_update() -> None:
    floor = await desk()
    early = await floor.client("early", "PRICE:A")
    await floor.publishing.publish("PRICE:A", PRICE)
    late = RecordingLink()
    floor.service.enter("late", late)
    reply = await floor.service.subscribe("late", ANN, ["PRICE:A"])
    assert reply["PRICE:A"]["seq"] == 1
    floor.turn()
    assert late.written == []
    assert len(early.written) == 1


async def test_who_has_gone_while_the_broker_was_asked_is_not_subscribed() -> None:
    floor = await desk()
    await floor.client("ann")
    await floor.service.leave("ann")
    reply = await floor.service.subscribe("ann", ANN, ["PRICE:A"])
    assert reply["PRICE:A"]["status"] == "ERROR"
    assert len(floor.subscriptions) == 0
    assert floor.fanout.link_count == 0


async def test_a_client_with_too_much_unread_is_ended_and_the_others_are_served() -> None:
    floor = await desk()
    slow, quick = await floor.client("slow", "PRICE:A"), await floor.client("quick", "PRICE:A")
    slow.buffered_bytes = 1001
    await floor.publishing.publish("PRICE:A", PRICE)
    floor.turn()
    assert slow.ended == ["server.overloaded"]
    assert slow.written == []
    assert len(quick.written) == 1


async def test_nothing_is_encoded_where_nobody_listens() -> None:
    floor = await desk()
    ann = await floor.client("ann", "PRICE:A")
    await floor.service.unsubscribe("ann", ANN, ["PRICE:A"])
    await floor.publishing.publish("PRICE:A", PRICE)
    assert floor.turns == []
    assert ann.written == []
