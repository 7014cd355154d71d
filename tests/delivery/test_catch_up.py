"""Coming back without sockets: what a client lacks, from the last event that it saw."""

from typing import Any

from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import STALE, MarketRig, trader

CONFIG = DeliveryConfig(buffer_bytes=4096, recoverable=True, backlog_messages=12)


async def opened() -> MarketRig:
    return await MarketRig.create(
        CONFIG, STALE, subscribing=SubscribingConfig(backlog_messages=12, max_reply_bytes=400)
    )


async def listener(desk: MarketRig, name: str, *topics: str, interval_ms: int = 0) -> RecordingLink:
    link = desk.connect(name, numbered=True)
    await desk.subscribe(name, *topics, interval_ms=interval_ms)
    return link


def offset(link: RecordingLink, index: int = -1) -> str | None:
    return link.numbered_events()[index][2]


def back(desk: MarketRig, name: str, seen: str | None) -> list[tuple[str, dict[str, Any]]] | None:
    """What a parked client is sent at once; None where it is not had back."""
    link = desk.link()
    if not desk.service.resume(name, trader(name), link, seen):
        return None
    return link.events()


async def trades(desk: MarketRig, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await desk.trade("A", number)
    desk.settle()


async def test_exactly_what_came_after_the_last_event_that_it_saw_comes_again() -> None:
    for index in range(4):
        desk = await opened()
        ann = await listener(desk, "ann", "TRADES:A")
        await trades(desk, 1, 4)
        desk.service.park("ann")
        missed = back(desk, "ann", offset(ann, index))
        assert missed is not None
        assert [body["seq"] for _, body in missed] == list(range(index + 2, 5))


async def test_a_kept_topic_is_had_back_to_the_last_message_at_hand_and_no_further() -> None:
    for count, recovered in ((12, True), (13, False)):
        desk = await opened()
        ann = await listener(desk, "ann", "TRADES:A")
        await trades(desk, 1, 1)
        desk.service.park("ann")
        await trades(desk, 2, 1 + count)
        missed = back(desk, "ann", offset(ann))
        assert (missed is not None) == recovered
        assert missed is None or len(missed) == count


async def test_a_merged_topic_says_how_much_was_missed_or_gives_its_state() -> None:
    desk = await opened()
    ann = await listener(desk, "ann", "PRICE:A")
    await desk.price("A", 1)
    desk.settle()
    desk.service.park("ann")
    for number in range(2, 6):
        desk.clock.advance(1)
        await desk.price("A", number)
        desk.settle()
    missed = back(desk, "ann", offset(ann))
    assert missed is not None
    [(_, body)] = missed
    assert (body["type"], body["prev"], body["seq"]) == ("update", 1, 5)
    assert (body["merged"], body["age_ms"], body["data"]["last"]) == (4, 3000, "5")
    desk.service.park("ann")
    for number in range(6, 40):
        await desk.price("A", number)
        desk.settle()
    missed = back(desk, "ann", offset(ann))
    assert missed is not None
    [(_, body)] = missed
    assert (body["type"], body["seq"], body["data"]["last"]) == ("snapshot", 39, "39")


async def test_a_snapshot_that_was_still_owed_is_owed_to_who_is_back() -> None:
    desk = await opened()
    bids = [(f"{price}.0", "1.00000000") for price in range(1, 60)]
    await desk.book("A", bids, [], "snapshot")
    desk.connect("ann", numbered=True)
    replies = await desk.subscribe("ann", "ORDERBOOK:A")
    assert replies["ORDERBOOK:A"]["snapshot"] is None, "too large for the answer"
    desk.service.park("ann")
    missed = back(desk, "ann", None)
    assert missed is not None
    [(_, body)] = missed
    assert (body["type"], len(body["data"]["bids"])) == ("snapshot", 59)


async def test_a_feed_that_was_silent_before_the_cut_still_is_for_who_is_back() -> None:
    desk = await opened()
    await desk.price("A", 1)
    await listener(desk, "eve", "PRICE:A")
    desk.pass_time(11)
    ann = await listener(desk, "ann", "PRICE:A")
    desk.service.park("ann")
    assert ann.events() == [], "its status is still on its way"
    missed = back(desk, "ann", None)
    assert missed is not None
    assert missed[-1][1]["state"] == "STALE"
    desk.service.park("ann")
    await desk.price("A", 2)
    desk.settle()
    missed = back(desk, "ann", None)
    assert missed is not None
    assert [body["state"] for event, body in missed if event == "status"] == ["LIVE"]


async def test_who_subscribed_again_and_may_not_have_the_answer_skips_nothing() -> None:
    desk = await opened()
    ann = await listener(desk, "ann", "TRADES:A")
    await trades(desk, 1, 1)
    seen = offset(ann)
    await trades(desk, 2, 3)
    await desk.subscribe("ann", "TRADES:A")
    desk.service.park("ann")
    missed = back(desk, "ann", seen)
    assert missed is not None
    assert [body["seq"] for _, body in missed] == [2, 3]


async def test_who_is_served_seldom_goes_on_with_its_pace_and_gets_nothing_twice() -> None:
    desk = await opened()
    ann = await listener(desk, "ann", "PRICE:A", interval_ms=1000)
    await listener(desk, "eve", "PRICE:A", interval_ms=1000)
    await desk.price("A", 1)
    desk.settle()
    desk.pass_time(1)
    seen = offset(ann)
    desk.service.park("ann")
    for number in range(2, 5):
        await desk.price("A", number)
        desk.settle()
    link = desk.link()
    assert desk.service.resume("ann", trader("ann"), link, seen)
    assert desk.service.subscriptions("ann")["PRICE:A"]["interval_ms"] == 1000
    desk.pass_time(1)
    desk.settle()
    desk.pass_time(1)
    assert [(body["prev"], body["seq"]) for body in link.messages("price")] == [(1, 4)]


async def test_a_pace_that_nobody_else_keeps_is_there_again_for_who_is_back() -> None:
    desk = await opened()
    ann = await listener(desk, "ann", "PRICE:A", interval_ms=100)
    await desk.price("A", 1)
    desk.settle()
    desk.pass_time(1)
    desk.service.park("ann")
    channel = desk.hub.channel("PRICE:A")
    assert channel is not None
    await desk.price("A", 2)
    desk.settle()
    desk.pass_time(1)
    assert channel.conflated == {}, "nobody is there to serve"
    missed = back(desk, "ann", offset(ann))
    assert missed is not None
    assert [(body["prev"], body["seq"]) for _, body in missed] == [(1, 2)]


async def test_a_client_that_breaks_while_it_subscribes_stands_nowhere() -> None:
    desk = await opened()
    ann = await listener(desk, "ann", "TRADES:A")
    ann.on_end = lambda: desk.service.park("ann")
    await desk.trade("A", 1)
    ann.broken = True
    replies = await desk.subscribe("ann", "TRADES:A")
    assert replies["TRADES:A"]["status"] == "ERROR"
    channel = desk.hub.channel("TRADES:A")
    assert channel is not None
    assert (channel.clients(), channel.parked_ids()) == ([], ("ann",))
    await desk.service.remove_connection("ann")
    assert desk.hub.channels() == ()


async def test_what_was_said_to_it_alone_is_said_once_however_often_it_is_cut_off() -> None:
    desk = await opened()
    await listener(desk, "ann", "TRADES:A")
    event = b'42/market,["notice",{"n":1}'
    desk.service.park("ann")
    assert not desk.hub.send_to("ann", event)
    for _ in range(3):
        missed = back(desk, "ann", None)
        assert missed == [("notice", {"n": 1})]
        desk.service.park("ann")


async def test_an_event_that_it_cannot_have_seen_recovers_nothing() -> None:
    desk = await opened()
    await listener(desk, "ann", "TRADES:A")
    eve = await listener(desk, "eve", "TRADES:A")
    desk.service.park("ann")
    await trades(desk, 1, 2)
    assert back(desk, "ann", offset(eve)) is None


async def test_a_snapshot_is_owed_also_to_who_has_heard_something_else_meanwhile() -> None:
    desk = await opened()
    bids = [(f"{price}.0", "1.00000000") for price in range(1, 60)]
    await desk.book("A", bids, [], "snapshot")
    ann = await listener(desk, "ann", "TRADES:A")
    await desk.subscribe("ann", "ORDERBOOK:A")
    await desk.trade("A", 1)
    desk.hub.flush()
    assert [event for event, _ in ann.events()] == ["trades"]
    desk.service.park("ann")
    missed = back(desk, "ann", offset(ann))
    assert missed is not None
    assert [body["type"] for _, body in missed] == ["snapshot"]


async def test_who_lagged_and_was_told_another_place_is_not_had_back_by_guessing() -> None:
    desk = await opened()
    ann = await listener(desk, "ann", "TRADES:A")
    await trades(desk, 1, 1)
    ann.stall()
    for number in range(2, 12):
        await trades(desk, number, number)
    assert ann.clogged
    await desk.subscribe("ann", "TRADES:A")
    desk.service.park("ann")
    assert back(desk, "ann", offset(ann)) is None


async def test_what_was_written_while_an_answer_was_made_does_not_prove_that_it_arrived() -> None:
    desk = await opened()
    ann = await listener(desk, "ann", "TRADES:B")
    await desk.price("A", 1)
    await desk.trade("B", 1)
    # The trade waits for the end of this turn, and is written between the two topics.
    await desk.subscribe("ann", "PRICE:A", "TRADES:B")
    desk.service.park("ann")
    missed = back(desk, "ann", offset(ann))
    assert missed is not None
    assert [(event, body["type"]) for event, body in missed] == [("price", "snapshot")]
