"""Tests resuming without sockets: what a client is sent after the last event it saw."""

from typing import Any

from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.kit.network.links import RecordingLink
from tests.kit.rigs.market import STALE, MarketRig

CONFIG = DeliveryConfig(buffer_bytes=4096, recoverable=True, backlog_messages=12)


async def create_rig() -> MarketRig:
    return await MarketRig.create(
        CONFIG, STALE, subscribing=SubscribingConfig(backlog_messages=12, max_reply_bytes=400)
    )


async def subscriber(
    rig: MarketRig, name: str, *topics: str, interval_ms: int = 0
) -> RecordingLink:
    link = rig.connect(name, numbered=True)
    await rig.subscribe(name, *topics, interval_ms=interval_ms)
    return link


def offset(link: RecordingLink, index: int = -1) -> str | None:
    return link.numbered_events()[index][2]


def resume(rig: MarketRig, name: str, seen: str | None) -> list[tuple[str, dict[str, Any]]] | None:
    """Resume a parked client; the events sent at once, None if it is not recovered."""
    link = rig.link()
    if not rig.resume(name, link, seen):
        return None
    return link.events()


async def publish_trades(rig: MarketRig, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await rig.trade("A", number)
    rig.settle()


async def test_resume_sends_exactly_the_messages_after_the_offset() -> None:
    for index in range(4):
        rig = await create_rig()
        ann = await subscriber(rig, "ann", "TRADES:A")
        await publish_trades(rig, 1, 4)
        rig.park("ann")
        missed = resume(rig, "ann", offset(ann, index))
        assert missed is not None
        assert [body["seq"] for _, body in missed] == list(range(index + 2, 5))


async def test_replayed_topic_recovers_as_far_as_its_history() -> None:
    for count, recovered in ((12, True), (13, False)):
        rig = await create_rig()
        ann = await subscriber(rig, "ann", "TRADES:A")
        await publish_trades(rig, 1, 1)
        rig.park("ann")
        await publish_trades(rig, 2, 1 + count)
        missed = resume(rig, "ann", offset(ann))
        assert (missed is not None) == recovered
        assert missed is None or len(missed) == count


async def test_merged_topic_resumes_with_an_update_or_a_snapshot() -> None:
    rig = await create_rig()
    ann = await subscriber(rig, "ann", "PRICE:A")
    await rig.price("A", 1)
    rig.settle()
    rig.park("ann")
    for number in range(2, 6):
        rig.clock.advance(1)
        await rig.price("A", number)
        rig.settle()
    missed = resume(rig, "ann", offset(ann))
    assert missed is not None
    [(_, body)] = missed
    assert (body["type"], body["prev"], body["seq"]) == ("update", 1, 5)
    assert (body["merged"], body["age_ms"], body["data"]["last"]) == (4, 3000, "5")
    rig.park("ann")
    for number in range(6, 40):
        await rig.price("A", number)
        rig.settle()
    missed = resume(rig, "ann", offset(ann))
    assert missed is not None
    [(_, body)] = missed
    assert (body["type"], body["seq"], body["data"]["last"]) == ("snapshot", 39, "39")


async def test_resumed_client_gets_its_pending_snapshot() -> None:
    rig = await create_rig()
    bids = [(f"{price}.0", "1.00000000") for price in range(1, 60)]
    await rig.book("A", bids, [], "snapshot")
    rig.connect("ann", numbered=True)
    replies = await rig.subscribe("ann", "ORDERBOOK:A")
    assert replies["ORDERBOOK:A"]["snapshot"] is None, "too large for the reply"
    rig.park("ann")
    missed = resume(rig, "ann", None)
    assert missed is not None
    [(_, body)] = missed
    assert (body["type"], len(body["data"]["bids"])) == ("snapshot", 59)


async def test_resumed_client_gets_its_pending_stale_status() -> None:
    rig = await create_rig()
    await rig.price("A", 1)
    await subscriber(rig, "eve", "PRICE:A")
    rig.pass_time(11)
    ann = await subscriber(rig, "ann", "PRICE:A")
    rig.park("ann")
    assert ann.events() == [], "its status is still pending"
    missed = resume(rig, "ann", None)
    assert missed is not None
    assert missed[-1][1]["state"] == "STALE"
    rig.park("ann")
    await rig.price("A", 2)
    rig.settle()
    missed = resume(rig, "ann", None)
    assert missed is not None
    assert [body["state"] for event, body in missed if event == "status"] == ["LIVE"]


async def test_lost_resubscribe_reply_skips_no_message() -> None:
    rig = await create_rig()
    ann = await subscriber(rig, "ann", "TRADES:A")
    await publish_trades(rig, 1, 1)
    seen = offset(ann)
    await publish_trades(rig, 2, 3)
    await rig.subscribe("ann", "TRADES:A")
    rig.park("ann")
    missed = resume(rig, "ann", seen)
    assert missed is not None
    assert [body["seq"] for _, body in missed] == [2, 3]


async def test_resumed_client_keeps_its_interval_without_duplicates() -> None:
    rig = await create_rig()
    ann = await subscriber(rig, "ann", "PRICE:A", interval_ms=1000)
    await subscriber(rig, "eve", "PRICE:A", interval_ms=1000)
    await rig.price("A", 1)
    rig.settle()
    rig.pass_time(1)
    seen = offset(ann)
    rig.park("ann")
    for number in range(2, 5):
        await rig.price("A", number)
        rig.settle()
    link = rig.link()
    assert rig.resume("ann", link, seen)
    assert rig.service.subscriptions("ann")["PRICE:A"]["interval_ms"] == 1000
    rig.pass_time(1)
    rig.settle()
    rig.pass_time(1)
    assert [(body["prev"], body["seq"]) for body in link.messages("price")] == [(1, 4)]


async def test_resume_creates_the_conflated_tier_again() -> None:
    rig = await create_rig()
    ann = await subscriber(rig, "ann", "PRICE:A", interval_ms=100)
    await rig.price("A", 1)
    rig.settle()
    rig.pass_time(1)
    rig.park("ann")
    channel = rig.hub.channel("PRICE:A")
    assert channel is not None
    await rig.price("A", 2)
    rig.settle()
    rig.pass_time(1)
    assert channel.conflated == {}, "the tier has no client"
    missed = resume(rig, "ann", offset(ann))
    assert missed is not None
    assert [(body["prev"], body["seq"]) for _, body in missed] == [(1, 2)]


async def test_client_broken_while_subscribing_is_parked() -> None:
    rig = await create_rig()
    ann = await subscriber(rig, "ann", "TRADES:A")
    ann.on_end = lambda: rig.park("ann")
    await rig.trade("A", 1)
    ann.broken = True
    replies = await rig.subscribe("ann", "TRADES:A")
    assert replies["TRADES:A"]["status"] == "ERROR"
    channel = rig.hub.channel("TRADES:A")
    assert channel is not None
    assert (channel.clients(), channel.parked_ids()) == ([], ("ann",))
    await rig.service.remove_connection("ann")
    assert rig.hub.channels() == ()


async def test_push_to_one_client_arrives_once_per_resume() -> None:
    rig = await create_rig()
    await subscriber(rig, "ann", "TRADES:A")
    event = b'42/market,["notice",{"n":1}'
    rig.park("ann")
    assert not rig.hub.send_to("ann", event)
    for _ in range(3):
        missed = resume(rig, "ann", None)
        assert missed == [("notice", {"n": 1})]
        rig.park("ann")


async def test_offset_after_the_disconnect_recovers_nothing() -> None:
    rig = await create_rig()
    await subscriber(rig, "ann", "TRADES:A")
    eve = await subscriber(rig, "eve", "TRADES:A")
    rig.park("ann")
    await publish_trades(rig, 1, 2)
    assert resume(rig, "ann", offset(eve)) is None


async def test_pending_snapshot_survives_other_messages() -> None:
    rig = await create_rig()
    bids = [(f"{price}.0", "1.00000000") for price in range(1, 60)]
    await rig.book("A", bids, [], "snapshot")
    ann = await subscriber(rig, "ann", "TRADES:A")
    await rig.subscribe("ann", "ORDERBOOK:A")
    await rig.trade("A", 1)
    rig.hub.flush()
    assert [event for event, _ in ann.events()] == ["trades"]
    rig.park("ann")
    missed = resume(rig, "ann", offset(ann))
    assert missed is not None
    assert [body["type"] for _, body in missed] == ["snapshot"]


async def test_slow_client_with_an_unconfirmed_reply_is_not_recovered() -> None:
    rig = await create_rig()
    ann = await subscriber(rig, "ann", "TRADES:A")
    await publish_trades(rig, 1, 1)
    ann.stall()
    for number in range(2, 12):
        await publish_trades(rig, number, number)
    assert ann.clogged
    await rig.subscribe("ann", "TRADES:A")
    rig.park("ann")
    assert resume(rig, "ann", offset(ann)) is None


async def test_write_during_subscribe_does_not_confirm_the_reply() -> None:
    rig = await create_rig()
    ann = await subscriber(rig, "ann", "TRADES:B")
    await rig.price("A", 1)
    await rig.trade("B", 1)
    # The trade is pending, and written between the two topics.
    await rig.subscribe("ann", "PRICE:A", "TRADES:B")
    rig.park("ann")
    missed = resume(rig, "ann", offset(ann))
    assert missed is not None
    assert [(event, body["type"]) for event, body in missed] == [("price", "snapshot")]
