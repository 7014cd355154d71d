"""Silence: a quiet topic repeats its head, a dead feed shows, and both end when it speaks again."""

import pytest

from server.delivery import DeliveryConfig
from tests.kit.clock import START
from tests.kit.rigs.market import STALE, MarketRig


async def silent_desk() -> MarketRig:
    return await MarketRig.create(DeliveryConfig(buffer_bytes=4096, stalled_seconds=0), STALE)


def wait(desk: MarketRig, seconds: int) -> None:
    for _ in range(seconds * 4):
        desk.pass_time(0.25)
        desk.settle()


async def test_a_topic_whose_feed_falls_silent_is_stale_and_live_when_it_is_back() -> None:
    desk = await silent_desk()
    await desk.price("A")
    ann = await desk.client("ann", "PRICE:A")
    bob = await desk.client("bob", "PRICE:A", interval_ms=1000)
    wait(desk, 9)
    assert ann.messages("status") == []
    wait(desk, 1)
    stale = {"stream": "PRICE", "symbol": "A", "state": "STALE", "since_ms": int(START * 1000)}
    assert ann.messages("status") == bob.messages("status") == [stale]
    wait(desk, 30)
    assert len(ann.messages("status")) == 1, "it is said once"
    await desk.price("A")
    desk.settle()
    live = {"stream": "PRICE", "symbol": "A", "state": "LIVE"}
    assert ann.messages("status")[1:] == bob.messages("status")[1:] == [live]
    assert [event for event, _ in ann.events()][-2:] == ["status", "price"]
    wait(desk, 10)
    assert ann.messages("status")[-1]["state"] == "STALE"


async def test_each_message_puts_the_silence_off() -> None:
    desk = await silent_desk()
    ann = await desk.client("ann", "PRICE:A")
    for _ in range(6):
        wait(desk, 6)
        await desk.price("A")
    assert ann.messages("status") == []


async def test_a_newcomer_to_a_stale_topic_is_told() -> None:
    desk = await silent_desk()
    await desk.client("ann", "PRICE:A")
    wait(desk, 11)
    bob = await desk.client("bob", "PRICE:A")
    desk.settle()
    assert [each["state"] for each in bob.messages("status")] == ["STALE"]


async def test_a_topic_that_fell_silent_long_before_anybody_listened_is_stale_at_once() -> None:
    desk = await silent_desk()
    await desk.price("A")
    desk.clock.advance(60.0)
    ann = await desk.client("ann", "PRICE:A")
    desk.settle()
    [status] = ann.messages("status")
    assert (status["state"], status["since_ms"]) == ("STALE", int(START * 1000))


async def test_a_topic_that_nobody_feeds_is_stale_after_its_time() -> None:
    desk = await silent_desk()
    ann = await desk.client("ann", "PRICE:NONE", "TRADES:NONE")
    wait(desk, 12)
    assert [(each["stream"], each["state"]) for each in ann.messages("status")] == [
        ("PRICE", "STALE")
    ], "trades have no such time"


async def test_who_does_not_read_hears_of_the_silence_when_it_reads_again() -> None:
    desk = await silent_desk()
    for pace in (0, 100):
        link = await desk.client(f"c{pace}", f"PRICE:P{pace}", interval_ms=pace)
        await desk.price(f"P{pace}")
        wait(desk, 1)
        link.clogged = True
        wait(desk, 11)
        assert link.messages("status") == []
        link.read()
        wait(desk, 1)
        assert [each["state"] for each in link.messages("status")] == ["STALE"]


@pytest.mark.behaviour("C6")
async def test_a_quiet_topic_repeats_its_head_so_that_a_lost_message_shows() -> None:
    desk = await silent_desk()
    await desk.price("A")
    ann = await desk.client("ann", "PRICE:A", "TRADES:A", "ORDERBOOK:A")
    wait(desk, 14)
    assert [each for each in ann.messages() if each.get("type") == "heartbeat"] == []
    wait(desk, 1)
    beats = [each for each in ann.messages() if each.get("type") == "heartbeat"]
    assert {(each["stream"], each["seq"], each["prev"]) for each in beats} == {
        ("PRICE", 1, 1),
        ("TRADES", 0, 0),
        ("ORDERBOOK", 0, 0),
    }
    wait(desk, 15)
    assert len([each for each in ann.messages("price") if each["type"] == "heartbeat"]) == 2


@pytest.mark.behaviour("C16")
async def test_a_heartbeat_never_stands_before_a_message_that_waits() -> None:
    desk = await silent_desk()
    ann = await desk.client("ann", "PRICE:A")
    await desk.price("A", 1)
    channel = desk.hub.channel("PRICE:A")
    assert channel is not None
    desk.freshness.send_heartbeat(channel)
    desk.settle()
    assert [(each["type"], each["seq"], each["prev"]) for each in ann.messages("price")] == [
        ("update", 1, 0),
        ("heartbeat", 1, 1),
    ]


async def test_a_client_that_has_not_got_the_head_gets_no_heartbeat() -> None:
    desk = await silent_desk()
    desk.pass_time(0)
    paced = await desk.client("paced", "PRICE:A", interval_ms=1000)
    stuck = await desk.client("stuck", "PRICE:A")
    late = await desk.client("late", "PRICE:A", interval_ms=250)
    stuck.clogged = True
    await desk.price("A", 1)
    desk.settle()
    newcomer = await desk.client("new", "PRICE:A", interval_ms=1000)
    channel = desk.hub.channel("PRICE:A")
    assert channel is not None
    desk.freshness.send_heartbeat(channel)
    assert [link.messages() for link in (paced, stuck, late)] == [[], [], []]
    [beat] = newcomer.messages()
    assert (beat["type"], beat["seq"], beat["prev"]) == ("heartbeat", 1, 1)
    await desk.price("A", 2)
    desk.freshness.send_heartbeat(channel)
    assert newcomer.messages() == [beat]


async def test_a_topic_that_nobody_listens_to_is_not_watched() -> None:
    desk = await silent_desk()
    await desk.client("ann", "PRICE:A")
    assert len(desk.freshness) == 1
    await desk.service.remove_connection("ann")
    assert len(desk.freshness) == 0
    wait(desk, 60)


async def test_subscribing_again_and_again_to_a_silent_topic_leaves_nothing_behind() -> None:
    desk = await silent_desk()
    topics = ["PRICE:A", "PRICE:B"]
    ann = await desk.client("ann", *topics)
    wait(desk, 10)
    ann.stall()
    ann.write(b"x" * 2048)
    assert ann.clogged
    for _ in range(50):
        await desk.subscribe("ann", *topics)
        desk.settle()
    channels = desk.hub.channels()
    assert sum(channel.up_to_date_count for channel in channels) <= len(topics)
    assert ann.waiter_count == 1, "it is told once that it can be written to again"
    del ann.written[:]
    ann.resume()
    desk.settle()
    assert [each["state"] for each in ann.messages("status")] == ["STALE", "STALE"]


async def test_who_is_slowed_down_while_a_topic_falls_silent_is_told_of_it() -> None:
    desk = await silent_desk()
    ann = await desk.client("ann", "PRICE:A", "PRICE:B", interval_ms=100)
    desk.pass_time(3)
    for _ in range(8):
        ann.resume()
        desk.settle()
        ann.stall()
        while not ann.clogged:
            await desk.price("B")
            desk.pass_time(0.1)
            desk.settle()
        # Seen to be clogged.
        await desk.price("B")
        desk.pass_time(0.1)
    assert desk.counters.total("delivery.widened") == 2
    assert ann.messages("status") == []
    wait(desk, 6)
    ann.resume()
    desk.settle()
    for _ in range(40):
        await desk.price("B")
        wait(desk, 1)
    assert [(each["symbol"], each["state"]) for each in ann.messages("status")] == [("A", "STALE")]


@pytest.mark.parametrize("seconds", [10, 15])
async def test_a_silent_topic_whose_last_listener_breaks_as_it_is_told_is_let_go(
    seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await silent_desk()
    ann = await desk.client("ann", "PRICE:A")
    await desk.client("bob", "PRICE:B")
    desk.pass_time(seconds - 0.5)
    desk.settle()

    def abort(reason: str) -> None:
        # As a transport does it, within the write that fails.
        with pytest.raises(StopIteration):
            desk.service.remove_connection("ann").send(None)

    monkeypatch.setattr(ann, "abort", abort)
    ann.broken = True
    desk.pass_time(0.6)
    assert [channel.name for channel in desk.hub.channels()] == ["PRICE:B"]
    assert len(desk.freshness) == 1
