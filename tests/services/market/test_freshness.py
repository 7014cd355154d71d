"""Tests heartbeats of quiet topics, and the STALE and LIVE status of feeds."""

import pytest

from server.delivery import DeliveryConfig
from tests.kit.clock import START
from tests.kit.rigs.market import STALE, MarketRig


async def create_rig() -> MarketRig:
    return await MarketRig.create(DeliveryConfig(buffer_bytes=4096, stalled_seconds=0), STALE)


def wait(rig: MarketRig, seconds: int) -> None:
    for _ in range(seconds * 4):
        rig.pass_time(0.25)
        rig.settle()


async def test_silent_topic_is_stale_until_its_feed_is_back() -> None:
    rig = await create_rig()
    await rig.price("A")
    ann = await rig.client("ann", "PRICE:A")
    bob = await rig.client("bob", "PRICE:A", interval_ms=1000)
    wait(rig, 9)
    assert ann.messages("status") == []
    wait(rig, 1)
    stale = {"stream": "PRICE", "symbol": "A", "state": "STALE", "since_ms": int(START * 1000)}
    assert ann.messages("status") == bob.messages("status") == [stale]
    wait(rig, 30)
    assert len(ann.messages("status")) == 1, "STALE was sent twice"
    await rig.price("A")
    rig.settle()
    live = {"stream": "PRICE", "symbol": "A", "state": "LIVE"}
    assert ann.messages("status")[1:] == bob.messages("status")[1:] == [live]
    assert [event for event, _ in ann.events()][-2:] == ["status", "price"]
    wait(rig, 10)
    assert ann.messages("status")[-1]["state"] == "STALE"


async def test_each_message_restarts_the_stale_timeout() -> None:
    rig = await create_rig()
    ann = await rig.client("ann", "PRICE:A")
    for _ in range(6):
        wait(rig, 6)
        await rig.price("A")
    assert ann.messages("status") == []


async def test_new_subscriber_of_a_stale_topic_gets_its_status() -> None:
    rig = await create_rig()
    await rig.client("ann", "PRICE:A")
    wait(rig, 11)
    bob = await rig.client("bob", "PRICE:A")
    rig.settle()
    assert [each["state"] for each in bob.messages("status")] == ["STALE"]


async def test_topic_silent_before_the_first_subscriber_is_stale() -> None:
    rig = await create_rig()
    await rig.price("A")
    rig.clock.advance(60.0)
    ann = await rig.client("ann", "PRICE:A")
    rig.settle()
    [status] = ann.messages("status")
    assert (status["state"], status["since_ms"]) == ("STALE", int(START * 1000))


async def test_topic_without_a_feed_becomes_stale() -> None:
    rig = await create_rig()
    ann = await rig.client("ann", "PRICE:NONE", "TRADES:NONE")
    wait(rig, 12)
    assert [(each["stream"], each["state"]) for each in ann.messages("status")] == [
        ("PRICE", "STALE")
    ], "trades have no stale timeout"


async def test_clogged_client_gets_stale_when_it_reads_again() -> None:
    rig = await create_rig()
    for interval_ms in (0, 100):
        link = await rig.client(f"c{interval_ms}", f"PRICE:P{interval_ms}", interval_ms=interval_ms)
        await rig.price(f"P{interval_ms}")
        wait(rig, 1)
        link.clogged = True
        wait(rig, 11)
        assert link.messages("status") == []
        link.read()
        wait(rig, 1)
        assert [each["state"] for each in link.messages("status")] == ["STALE"]


@pytest.mark.behaviour("C6")
async def test_quiet_topic_sends_heartbeats_with_its_position() -> None:
    rig = await create_rig()
    await rig.price("A")
    ann = await rig.client("ann", "PRICE:A", "TRADES:A", "ORDERBOOK:A")
    wait(rig, 14)
    assert [each for each in ann.messages() if each.get("type") == "heartbeat"] == []
    wait(rig, 1)
    beats = [each for each in ann.messages() if each.get("type") == "heartbeat"]
    assert {(each["stream"], each["seq"], each["prev"]) for each in beats} == {
        ("PRICE", 1, 1),
        ("TRADES", 0, 0),
        ("ORDERBOOK", 0, 0),
    }
    wait(rig, 15)
    assert len([each for each in ann.messages("price") if each["type"] == "heartbeat"]) == 2


@pytest.mark.behaviour("C16")
async def test_heartbeat_follows_pending_messages() -> None:
    rig = await create_rig()
    ann = await rig.client("ann", "PRICE:A")
    await rig.price("A", 1)
    channel = rig.hub.channel("PRICE:A")
    assert channel is not None
    rig.freshness.send_heartbeat(channel)
    rig.settle()
    assert [(each["type"], each["seq"], each["prev"]) for each in ann.messages("price")] == [
        ("update", 1, 0),
        ("heartbeat", 1, 1),
    ]


async def test_client_behind_the_head_gets_no_heartbeat() -> None:
    rig = await create_rig()
    rig.pass_time(0)
    conflated = await rig.client("paced", "PRICE:A", interval_ms=1000)
    stuck = await rig.client("stuck", "PRICE:A")
    late = await rig.client("late", "PRICE:A", interval_ms=250)
    stuck.clogged = True
    await rig.price("A", 1)
    rig.settle()
    newcomer = await rig.client("new", "PRICE:A", interval_ms=1000)
    channel = rig.hub.channel("PRICE:A")
    assert channel is not None
    rig.freshness.send_heartbeat(channel)
    assert [link.messages() for link in (conflated, stuck, late)] == [[], [], []]
    [beat] = newcomer.messages()
    assert (beat["type"], beat["seq"], beat["prev"]) == ("heartbeat", 1, 1)
    await rig.price("A", 2)
    rig.freshness.send_heartbeat(channel)
    assert newcomer.messages() == [beat]


async def test_topic_without_subscribers_is_not_monitored() -> None:
    rig = await create_rig()
    await rig.client("ann", "PRICE:A")
    assert len(rig.freshness) == 1
    await rig.service.remove_connection("ann")
    assert len(rig.freshness) == 0
    wait(rig, 60)


async def test_repeated_subscribes_to_a_stale_topic_leak_nothing() -> None:
    rig = await create_rig()
    topics = ["PRICE:A", "PRICE:B"]
    ann = await rig.client("ann", *topics)
    wait(rig, 10)
    ann.stall()
    ann.write(b"x" * 2048)
    assert ann.clogged
    for _ in range(50):
        await rig.subscribe("ann", *topics)
        rig.settle()
    channels = rig.hub.channels()
    assert sum(len(channel._up_to_date) for channel in channels) <= len(topics)
    assert ann.waiter_count == 1, "more than one callback waits for the link"
    del ann.written[:]
    ann.resume()
    rig.settle()
    assert [each["state"] for each in ann.messages("status")] == ["STALE", "STALE"]


async def test_widened_client_gets_the_stale_status() -> None:
    rig = await create_rig()
    ann = await rig.client("ann", "PRICE:A", "PRICE:B", interval_ms=100)
    rig.pass_time(3)
    for _ in range(8):
        ann.resume()
        rig.settle()
        ann.stall()
        while not ann.clogged:
            await rig.price("B")
            rig.pass_time(0.1)
            rig.settle()
        # The next flush finds the link clogged.
        await rig.price("B")
        rig.pass_time(0.1)
    assert rig.counters.total("delivery.widened") == 2
    assert ann.messages("status") == []
    wait(rig, 6)
    ann.resume()
    rig.settle()
    for _ in range(40):
        await rig.price("B")
        wait(rig, 1)
    assert [(each["symbol"], each["state"]) for each in ann.messages("status")] == [("A", "STALE")]


@pytest.mark.parametrize("seconds", [10, 15])
async def test_topic_closes_if_its_status_write_fails(
    seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await create_rig()
    ann = await rig.client("ann", "PRICE:A")
    await rig.client("bob", "PRICE:B")
    rig.pass_time(seconds - 0.5)
    rig.settle()

    def abort(reason: str) -> None:
        # As a transport does, inside the failing write.
        with pytest.raises(StopIteration):
            rig.service.remove_connection("ann").send(None)

    monkeypatch.setattr(ann, "abort", abort)
    ann.broken = True
    rig.pass_time(0.6)
    assert [channel.name for channel in rig.hub.channels()] == ["PRICE:B"]
    assert len(rig.freshness) == 1
