"""A channel that begins anew: everybody is told, and nobody is left with a splice."""

import orjson

from server.brokers import MemoryBroker
from server.core.counters import Counters
from server.core.log.entries import Entry, Position, Reset
from server.delivery import DeliveryConfig, Hub
from server.delivery.session_state import SessionState
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


def seen(link: RecordingLink) -> list[tuple[object, ...]]:
    """Everything that a client was sent since the last look, in short."""
    events = link.events()
    link.written.clear()
    return [
        ("status", body["state"])
        if event == "status"
        else (body["type"], body["epoch"], body["seq"], body["prev"])
        for event, body in events
    ]


async def test_a_merged_topic_goes_on_with_a_snapshot() -> None:
    desk = await MarketRig.create()
    await desk.price("A")
    ann = await desk.client("ann", "PRICE:A")
    slow = await desk.client("slow", "PRICE:A", interval_ms=1000)
    for reader in (ann, slow):
        reader.written.clear()
    desk.hub.reset(Reset("PRICE:A", HERE, price(7)))
    desk.hub.deliver(price(8))
    desk.settle()
    anew = [("status", "RESYNC"), ("snapshot", "e2", 8, 1), ("status", "LIVE")]
    assert seen(ann) == anew, "prev is what was sent last, wherever that was"
    assert seen(slow) == anew


async def test_a_kept_topic_that_begins_anew_says_so_and_skips_nothing_of_the_new() -> None:
    desk = await MarketRig.create()
    for number in (1, 2):
        await desk.trade("A", number)
    ann = await desk.client("ann", "TRADES:A")
    desk.hub.reset(Reset("TRADES:A", Position("e2", 0), None))
    for seq in (1, 2):
        desk.hub.deliver(trade(seq))
    desk.settle()
    told = seen(ann)
    assert told[0] == ("status", "RESYNC")
    assert [each for each in told if each[0] != "status"] == [
        ("update", "e2", 1, 0),
        ("update", "e2", 2, 1),
    ]


async def test_a_gap_in_a_kept_topic_is_an_explicit_snapshot() -> None:
    desk = await MarketRig.create()
    await desk.trade("A", 1)
    ann = await desk.client("ann", "TRADES:A")
    desk.hub.reset(Reset("TRADES:A", Position("e1", 9), trade(9, "e1")))
    desk.settle()
    desk.hub.deliver(trade(10, "e1"))
    desk.settle()
    assert seen(ann) == [
        ("status", "RESYNC"),
        ("snapshot", "e1", 9, 1),
        ("status", "LIVE"),
        ("update", "e1", 10, 9),
    ]


async def test_what_waited_comes_before_the_news() -> None:
    desk = await MarketRig.create()
    ann = await desk.client("ann", "TRADES:A")
    await desk.trade("A", 1)
    desk.hub.reset(Reset("TRADES:A", Position("e2", 0), None))
    desk.settle()
    assert seen(ann)[:2] == [("update", "e1", 1, 0), ("status", "RESYNC")]


async def test_who_does_not_read_is_told_when_it_does() -> None:
    desk = await MarketRig.create(DeliveryConfig(buffer_bytes=4096))
    ann = await desk.client("ann", "TRADES:A", "PRICE:A")
    ann.stall()
    for number in range(1, 30):
        await desk.trade("A", number)
        desk.settle()
    assert ann.clogged
    desk.hub.reset(Reset("TRADES:A", HERE, trade(7)))
    desk.settle()
    ann.resume()
    desk.settle()
    told = [each for each in seen(ann) if each != ("status", "LIVE")]
    at = told.index(("status", "RESYNC"))
    assert all(each[1] == "e1" for each in told[:at])
    assert [each[:3] for each in told[at + 1 :]] == [("snapshot", "e2", 7)]


async def test_a_book_is_whole_again_after_a_reset() -> None:
    desk = await MarketRig.create()
    await desk.book("A", [("9", "1")], [("10", "1")], "snapshot")
    ann = await desk.client("ann", "ORDERBOOK:A")
    whole = orjson.dumps({"bids": [["5", "1"]], "asks": [["6", "2"]], "checksum": 1})
    desk.hub.reset(Reset("ORDERBOOK:A", HERE, Entry("ORDERBOOK:A", HERE, 5, whole, "snapshot")))
    change = orjson.dumps({"bids": [["4", "1"]], "asks": [], "checksum": 1})
    desk.hub.deliver(Entry("ORDERBOOK:A", Position("e2", 8), 5, change))
    desk.settle()
    [message] = ann.messages("orderbook")
    assert message["data"]["bids"] == [["5", "1"], ["4", "1"]]
    assert message["data"]["asks"] == [["6", "2"]]


async def test_a_reset_while_a_topic_is_opened_is_what_its_first_listener_finds() -> None:
    desk = await MarketRig.create()
    await desk.trade("A", 1)

    async def latest(channel: str) -> Entry | None:
        found = await MemoryBroker.latest(desk.broker, channel)
        desk.hub.deliver(trade(2, "e1"))
        desk.hub.reset(Reset(channel, Position("e2", 0), None))
        desk.hub.deliver(trade(1))
        return found

    desk.broker.latest = latest  # type: ignore[method-assign]
    ann = desk.connect("ann")
    reply = await desk.subscribe("ann", "TRADES:A")
    assert (reply["TRADES:A"]["epoch"], reply["TRADES:A"]["seq"]) == ("e2", 1)
    desk.hub.deliver(trade(2))
    desk.settle()
    assert seen(ann) == [("update", "e2", 2, 1)]


def session_of_two() -> tuple[Hub, RecordingLink, RecordingLink]:
    """Two members, one of whom does not read."""
    fanout = Hub(
        DeliveryConfig(buffer_bytes=1024),
        clock=ManualClock(),
        counters=Counters(),
        schedule=lambda call, seconds: None,
    )
    view = SessionState("s", Position("e1", 0), max_messages=100, max_bytes=100_000)
    channel = fanout.open("session", view)
    links = (RecordingLink(), RecordingLink(clog_bytes=10))
    for name, link in zip(("quick", "slow"), links, strict=True):
        fanout.attach(name, link)
        fanout.subscribe(name, channel, 0)
    links[1].stall()
    for seq in (1, 2):
        fanout.deliver(said(seq, "e1"))
        fanout.flush()
    return (fanout, *links)


def said(seq: int, epoch: str) -> Entry:
    return Entry("session", Position(epoch, seq), 5, b'{"id":"%d"}' % seq)


def test_a_session_that_begins_anew_goes_on_for_those_who_had_everything() -> None:
    fanout, quick, slow = session_of_two()
    fanout.reset(Reset("session", Position("e2", 0), None))
    fanout.deliver(said(1, "e2"))
    fanout.flush()
    assert [(each["epoch"], each["seq"]) for each in quick.messages()] == [
        ("e1", 1),
        ("e1", 2),
        ("e2", 1),
    ]
    assert (quick.ended, slow.ended) == ([], ["server.overloaded"])


def test_a_gap_in_a_session_sends_everybody_away() -> None:
    fanout, quick, slow = session_of_two()
    fanout.reset(Reset("session", Position("e1", 9), said(9, "e1")))
    assert (quick.ended, slow.ended) == (["server.overloaded"], ["server.overloaded"])


# --- the broker itself


async def test_without_a_broker_every_topic_is_stale_until_it_is_back() -> None:
    desk = await MarketRig.create(freshness=STALE)
    await desk.price("A")
    ann = await desk.client("ann", "PRICE:A", "TRADES:A")
    desk.freshness.set_broker_up(False)
    assert seen(ann) == [("status", "STALE"), ("status", "STALE")]
    bob = await desk.client("bob", "PRICE:A")
    desk.settle()
    assert seen(bob) == [("status", "STALE")], "who comes meanwhile is told too"
    desk.freshness.set_broker_up(True)
    assert seen(ann) == [("status", "LIVE"), ("status", "LIVE")]


async def test_a_feed_that_fell_silent_meanwhile_stays_stale() -> None:
    desk = await MarketRig.create(freshness=STALE)
    await desk.price("A")
    ann = await desk.client("ann", "PRICE:A", "TRADES:A")
    desk.freshness.set_broker_up(False)
    desk.clock.advance(11)
    ann.written.clear()
    desk.freshness.set_broker_up(True)
    assert seen(ann) == [("status", "LIVE")], "trades may be silent, prices may not"
    await desk.price("A")
    desk.settle()
    assert seen(ann)[0] == ("status", "LIVE")
