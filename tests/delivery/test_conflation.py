"""Tests conflation: a client with an interval gets merged messages that say so."""

import pytest

from server.core.wire.frames import text_frame
from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.kit.clock import START
from tests.kit.rigs.market import PRICE, STALE, MarketRig


@pytest.mark.behaviour("A9")
async def test_price_message_has_the_documented_format() -> None:
    rig = await MarketRig.create()
    ann = await rig.client("ann", "PRICE:BTCUSDT")
    await rig.price("BTCUSDT", "64250.10")
    rig.run_scheduled()
    assert ann.events() == [
        (
            "price",
            {
                "stream": "PRICE",
                "symbol": "BTCUSDT",
                "type": "update",
                "epoch": "e1",
                "seq": 1,
                "prev": 0,
                "ts": int(START * 1000),
                "data": {"bid": "1.00", "ask": "1.02", "last": "64250.10", "volume": "5"},
            },
        )
    ]


async def test_conflated_message_has_latest_value_count_and_age() -> None:
    rig = await MarketRig.create()
    rig.pass_time(0)
    quick = await rig.client("quick", "PRICE:A")
    conflated = await rig.client("paced", "PRICE:A", interval_ms=250)
    for number in (1, 2, 3):
        await rig.price("A", number)
        rig.settle()
        rig.pass_time(0.05)
    assert len(quick.messages("price")) == 3
    assert conflated.messages() == []
    listed = [rig.service.subscriptions(name)["PRICE:A"] for name in ("quick", "paced")]
    assert [each["seq"] for each in listed] == [3, 0], "the last entry sent to each"
    rig.pass_time(0.1)
    [message] = conflated.messages("price")
    assert (message["seq"], message["prev"], message["data"]["last"]) == (3, 0, "3")
    assert (message["merged"], message["age_ms"]) == (3, 250)
    await rig.price("A", 4)
    rig.settle()
    rig.pass_time(0.25)
    single = conflated.messages("price")[-1]
    assert (single["seq"], single["prev"]) == (4, 3)
    assert not {"merged", "age_ms"} & single.keys(), "a single message has no merge fields"
    rig.pass_time(0.25)
    assert len(conflated.messages("price")) == 2, "sent a message without a new entry"
    await rig.service.remove_connection("paced")
    await rig.price("A", 5)
    rig.settle()
    rig.pass_time(0.25)
    channel = rig.hub.channel("PRICE:A")
    assert channel is not None
    assert channel.conflated == {}, "an empty tier was not removed"


async def test_late_client_shares_bytes_after_its_first_message() -> None:
    rig = await MarketRig.create()
    rig.pass_time(0)
    first, second = [
        await rig.client(name, "PRICE:A", interval_ms=100) for name in ("first", "second")
    ]
    await rig.price("A", 1)
    late = await rig.client("late", "PRICE:A", interval_ms=100)
    await rig.price("A", 2)
    rig.settle()
    rig.pass_time(0.1)
    assert first.written[0] is second.written[0]
    [merged], [single] = first.messages("price"), late.messages("price")
    assert (merged["seq"], merged["prev"], merged["merged"]) == (2, 0, 2)
    assert (single["seq"], single["prev"]) == (2, 1)
    assert "merged" not in single
    await rig.price("A", 3)
    rig.settle()
    rig.pass_time(0.1)
    assert late.written[-1] is first.written[-1]


async def test_book_changes_merge_into_one_equivalent_change() -> None:
    rig = await MarketRig.create()
    rig.pass_time(0)
    await rig.book("A", [("9", "1"), ("8", "1")], [("11", "1")], "snapshot")
    conflated = await rig.client("paced", "ORDERBOOK:A", interval_ms=100)
    await rig.book("A", [("9", "0"), ("8.5", "2")], [])
    await rig.book("A", [("8.5", "3")], [("10", "4")])
    rig.settle()
    rig.pass_time(0.1)
    [message] = conflated.messages("orderbook")
    assert (message["type"], message["merged"], message["prev"]) == ("update", 2, 1)
    latest = await rig.broker.latest("ORDERBOOK:A")
    assert latest is not None
    assert message["data"]["bids"] == [["9", "0"], ["8.5", "3"]]
    assert message["data"]["asks"] == [["10", "4"]]
    assert b'"checksum":%d}' % message["data"]["checksum"] in latest.data


async def test_book_snapshot_replaces_changes_that_are_gone() -> None:
    rig = await MarketRig.create(subscribing=SubscribingConfig(backlog_messages=2))
    rig.pass_time(0)
    await rig.book("A", [("9", "1")], [("11", "1")], "snapshot")
    conflated = await rig.client("paced", "ORDERBOOK:A", interval_ms=1000)
    for quantity in "23456":
        await rig.book("A", [("9", quantity)], [])
    rig.settle()
    rig.pass_time(1.0)
    [message] = conflated.messages("orderbook")
    assert (message["type"], message["merged"], message["prev"]) == ("snapshot", 5, 1)
    assert message["data"]["bids"] == [["9", "6"]]
    assert message["data"]["asks"] == [["11", "1"]]


async def test_resubscribe_changes_the_interval_without_duplicates() -> None:
    rig = await MarketRig.create()
    rig.pass_time(0)
    ann = await rig.client("ann", "PRICE:A", interval_ms=1000)
    await rig.price("A", 1)
    rig.settle()
    reply = await rig.subscribe("ann", "PRICE:A")
    assert (reply["PRICE:A"]["interval_ms"], reply["PRICE:A"]["seq"]) == (0, 1)
    await rig.price("A", 2)
    rig.settle()
    rig.pass_time(1.0)
    assert [(each["seq"], each["prev"]) for each in ann.messages("price")] == [(2, 1)]


@pytest.mark.behaviour("C9", "C15")
async def test_client_gets_only_its_own_topics() -> None:
    rig = await MarketRig.create()
    both = await rig.client("both", "PRICE:A", "TRADES:A")
    one = await rig.client("one", "PRICE:B")
    await rig.price("A")
    await rig.trade("A", 1)
    await rig.price("B")
    rig.settle()
    assert [event for event, _ in both.events()] == ["price", "trades"]
    assert {each["symbol"] for each in both.messages()} == {"A"}
    assert [each["symbol"] for each in one.messages()] == ["B"]


async def test_topic_closes_when_its_conflated_client_leaves() -> None:
    rig = await MarketRig.create()
    await rig.client("ann", "PRICE:A", interval_ms=100)
    await rig.price("A")
    await rig.service.remove_connection("ann")
    rig.settle()
    rig.pass_time(1.0)
    assert rig.hub.channels() == ()


async def test_conflated_flush_clears_the_backlog_of_a_client() -> None:
    rig = await MarketRig.create(DeliveryConfig(buffer_bytes=4096, stalled_seconds=0), STALE)
    await rig.price("A")
    rig.pass_time(11)
    ann = rig.connect("ann")
    ann.stall()
    ann.write(text_frame(b'["filler",{}]') * 100)
    # The topic is stale: the client gets the status as soon as it reads.
    await rig.subscribe("ann", "PRICE:A", interval_ms=100)
    rig.settle()
    ann.read()
    # But its interval is due before that, and its link is clogged again.
    await rig.publishing.publish("PRICE:A", {**PRICE, "padding": "x" * 1500})
    rig.pass_time(0.2)
    rig.settle()
    assert ann.clogged
    ann.read()
    await rig.price("A")
    rig.pass_time(0.2)
    rig.settle()
    ann.resume()
    rig.settle()
    assert [(each["prev"], each["seq"]) for each in ann.messages("price")] == [(1, 2), (2, 3)]


async def test_compressed_clients_of_one_interval_share_bytes() -> None:
    rig = await MarketRig.create()
    ann, bob = [await rig.client(name, "PRICE:A", interval_ms=100) for name in ("ann", "bob")]
    ann.deflates = bob.deflates = True
    await rig.price("A")
    rig.pass_time(0.2)
    assert ann.written[-1] is bob.written[-1]


async def test_age_for_a_new_client_starts_at_its_first_message() -> None:
    rig = await MarketRig.create()
    rig.pass_time(0)
    await rig.client("first", "PRICE:A", interval_ms=1000)
    await rig.price("A", 1)
    rig.settle()
    rig.pass_time(0.3)
    newcomer = await rig.client("newcomer", "PRICE:A", interval_ms=1000)
    rig.pass_time(0.2)
    for last in (2, 3):
        await rig.price("A", last)
        rig.settle()
        rig.pass_time(0.1)
    rig.pass_time(0.3)
    [message] = newcomer.messages("price")
    assert (message["merged"], message["prev"], message["age_ms"]) == (2, 1, 500)
