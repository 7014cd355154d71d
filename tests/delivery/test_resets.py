"""Tests resets of a channel: every subscriber learns of the gap."""

import orjson

from server.brokers import MemoryBroker
from server.core.counters import Counters
from server.core.log.entries import Entry, Position, Reset
from server.core.sessions.session_state import SessionState
from server.delivery import DeliveryConfig, Hub
from tests.kit.clock import ManualClock
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import PRICE, STALE, MarketRig

HERE = Position("e2", 7)


def price(seq: int, last: str = "9") -> Entry:
    data = orjson.dumps({**PRICE, "last": last})
    return Entry("PRICE:A", Position("e2", seq), 5, data)


def trade(seq: int, epoch: str = "e2") -> Entry:
    body = {"trades": [{"id": seq, "price": "1", "qty": "1", "side": "buy", "ts": 1}]}
    return Entry("TRADES:A", Position(epoch, seq), 5, orjson.dumps(body))


def take_events(link: RecordingLink) -> list[tuple[object, ...]]:
    """What a client received since the last call, shortened."""
    events = link.events()
    link.written.clear()
    return [
        ("status", body["state"])
        if event == "status"
        else (body["type"], body["epoch"], body["seq"], body["prev"])
        for event, body in events
    ]


async def test_merged_topic_continues_with_a_snapshot() -> None:
    rig = await MarketRig.create()
    await rig.price("A")
    ann = await rig.client("ann", "PRICE:A")
    slow = await rig.client("slow", "PRICE:A", interval_ms=1000)
    for reader in (ann, slow):
        reader.written.clear()
    rig.hub.reset(Reset("PRICE:A", HERE, price(7)))
    rig.hub.deliver(price(8))
    rig.settle()
    expected = [("status", "RESYNC"), ("snapshot", "e2", 8, 1), ("status", "LIVE")]
    assert take_events(ann) == expected, "prev is not the last seq sent"
    assert take_events(slow) == expected


async def test_replayed_topic_resyncs_and_skips_no_new_message() -> None:
    rig = await MarketRig.create()
    for number in (1, 2):
        await rig.trade("A", number)
    ann = await rig.client("ann", "TRADES:A")
    rig.hub.reset(Reset("TRADES:A", Position("e2", 0), None))
    for seq in (1, 2):
        rig.hub.deliver(trade(seq))
    rig.settle()
    events = take_events(ann)
    assert events[0] == ("status", "RESYNC")
    assert [each for each in events if each[0] != "status"] == [
        ("update", "e2", 1, 0),
        ("update", "e2", 2, 1),
    ]


async def test_gap_in_a_replayed_topic_is_a_snapshot() -> None:
    rig = await MarketRig.create()
    await rig.trade("A", 1)
    ann = await rig.client("ann", "TRADES:A")
    rig.hub.reset(Reset("TRADES:A", Position("e1", 9), trade(9, "e1")))
    rig.settle()
    rig.hub.deliver(trade(10, "e1"))
    rig.settle()
    assert take_events(ann) == [
        ("status", "RESYNC"),
        ("snapshot", "e1", 9, 1),
        ("status", "LIVE"),
        ("update", "e1", 10, 9),
    ]


async def test_pending_message_comes_before_the_resync() -> None:
    rig = await MarketRig.create()
    ann = await rig.client("ann", "TRADES:A")
    await rig.trade("A", 1)
    rig.hub.reset(Reset("TRADES:A", Position("e2", 0), None))
    rig.settle()
    assert take_events(ann)[:2] == [("update", "e1", 1, 0), ("status", "RESYNC")]


async def test_clogged_client_gets_the_resync_when_it_reads() -> None:
    rig = await MarketRig.create(DeliveryConfig(buffer_bytes=4096))
    ann = await rig.client("ann", "TRADES:A", "PRICE:A")
    ann.stall()
    for number in range(1, 30):
        await rig.trade("A", number)
        rig.settle()
    assert ann.clogged
    rig.hub.reset(Reset("TRADES:A", HERE, trade(7)))
    rig.settle()
    ann.resume()
    rig.settle()
    events = [each for each in take_events(ann) if each != ("status", "LIVE")]
    at = events.index(("status", "RESYNC"))
    assert all(each[1] == "e1" for each in events[:at])
    assert [each[:3] for each in events[at + 1 :]] == [("snapshot", "e2", 7)]


async def test_reset_replaces_the_book() -> None:
    rig = await MarketRig.create()
    await rig.book("A", [("9", "1")], [("10", "1")], "snapshot")
    ann = await rig.client("ann", "ORDERBOOK:A")
    whole = orjson.dumps({"bids": [["5", "1"]], "asks": [["6", "2"]], "checksum": 1})
    rig.hub.reset(Reset("ORDERBOOK:A", HERE, Entry("ORDERBOOK:A", HERE, 5, whole, "snapshot")))
    change = orjson.dumps({"bids": [["4", "1"]], "asks": [], "checksum": 1})
    rig.hub.deliver(Entry("ORDERBOOK:A", Position("e2", 8), 5, change))
    rig.settle()
    [message] = ann.messages("orderbook")
    assert message["data"]["bids"] == [["5", "1"], ["4", "1"]]
    assert message["data"]["asks"] == [["6", "2"]]


async def test_reset_during_open_reaches_the_first_subscriber() -> None:
    rig = await MarketRig.create()
    await rig.trade("A", 1)

    async def latest(channel: str) -> Entry | None:
        found = await MemoryBroker.latest(rig.broker, channel)
        rig.hub.deliver(trade(2, "e1"))
        rig.hub.reset(Reset(channel, Position("e2", 0), None))
        rig.hub.deliver(trade(1))
        return found

    rig.broker.latest = latest  # type: ignore[method-assign]
    ann = rig.connect("ann")
    reply = await rig.subscribe("ann", "TRADES:A")
    assert (reply["TRADES:A"]["epoch"], reply["TRADES:A"]["seq"]) == ("e2", 1)
    rig.hub.deliver(trade(2))
    rig.settle()
    assert take_events(ann) == [("update", "e2", 2, 1)]


def session_of_two() -> tuple[Hub, RecordingLink, RecordingLink]:
    """A session of two members; the second does not read."""
    hub = Hub(
        DeliveryConfig(buffer_bytes=1024),
        clock=ManualClock(),
        counters=Counters(),
        schedule=lambda call, seconds: None,
    )
    state = SessionState("s", Position("e1", 0), max_messages=100, max_bytes=100_000)
    channel = hub.open("session", state)
    links = (RecordingLink(), RecordingLink(clog_bytes=10))
    for name, link in zip(("quick", "slow"), links, strict=True):
        hub.attach(name, link)
        hub.subscribe(name, channel, 0)
    links[1].stall()
    for seq in (1, 2):
        hub.deliver(session_message(seq, "e1"))
        hub.flush()
    return (hub, *links)


def session_message(seq: int, epoch: str) -> Entry:
    return Entry("session", Position(epoch, seq), 5, b'{"id":"%d"}' % seq)


def test_new_epoch_keeps_session_members_that_are_caught_up() -> None:
    hub, quick, slow = session_of_two()
    hub.reset(Reset("session", Position("e2", 0), None))
    hub.deliver(session_message(1, "e2"))
    hub.flush()
    assert [(each["epoch"], each["seq"]) for each in quick.messages()] == [
        ("e1", 1),
        ("e1", 2),
        ("e2", 1),
    ]
    assert (quick.ended, slow.ended) == ([], ["server.overloaded"])


def test_gap_in_a_session_disconnects_members() -> None:
    hub, quick, slow = session_of_two()
    hub.reset(Reset("session", Position("e1", 9), session_message(9, "e1")))
    assert (quick.ended, slow.ended) == (["server.overloaded"], ["server.overloaded"])


# --- broker state


async def test_topics_are_stale_while_the_broker_is_down() -> None:
    rig = await MarketRig.create(freshness=STALE)
    await rig.price("A")
    ann = await rig.client("ann", "PRICE:A", "TRADES:A")
    rig.freshness.set_broker_up(False)
    assert take_events(ann) == [("status", "STALE"), ("status", "STALE")]
    bob = await rig.client("bob", "PRICE:A")
    rig.settle()
    assert take_events(bob) == [("status", "STALE")], "a new subscriber got no status"
    rig.freshness.set_broker_up(True)
    assert take_events(ann) == [("status", "LIVE"), ("status", "LIVE")]


async def test_silent_feed_stays_stale_after_the_broker_is_back() -> None:
    rig = await MarketRig.create(freshness=STALE)
    await rig.price("A")
    ann = await rig.client("ann", "PRICE:A", "TRADES:A")
    rig.freshness.set_broker_up(False)
    rig.clock.advance(11)
    ann.written.clear()
    rig.freshness.set_broker_up(True)
    assert take_events(ann) == [("status", "LIVE")], (
        "only trades, without a stale timeout, are live"
    )
    await rig.price("A")
    rig.settle()
    assert take_events(ann)[0] == ("status", "LIVE")
