"""Paces: a client that asked for fewer messages gets them merged, and is told so."""

import pytest

from server.core.wire.frames import text_frame
from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.kit.clock import START
from tests.kit.rigs.market import PRICE, STALE, MarketRig


@pytest.mark.behaviour("A9")
async def test_a_price_comes_in_its_format() -> None:
    desk = await MarketRig.create()
    ann = await desk.client("ann", "PRICE:BTCUSDT")
    await desk.price("BTCUSDT", "64250.10")
    desk.run_scheduled()
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


async def test_a_paced_client_gets_the_latest_value_with_how_many_and_how_old() -> None:
    desk = await MarketRig.create()
    desk.pass_time(0)
    quick = await desk.client("quick", "PRICE:A")
    paced = await desk.client("paced", "PRICE:A", interval_ms=250)
    for number in (1, 2, 3):
        await desk.price("A", number)
        desk.settle()
        desk.pass_time(0.05)
    assert len(quick.messages("price")) == 3
    assert paced.messages() == []
    listed = [desk.service.subscriptions(name)["PRICE:A"] for name in ("quick", "paced")]
    assert [each["seq"] for each in listed] == [3, 0], "what each was last sent"
    desk.pass_time(0.1)
    [message] = paced.messages("price")
    assert (message["seq"], message["prev"], message["data"]["last"]) == (3, 0, "3")
    assert (message["merged"], message["age_ms"]) == (3, 250)
    await desk.price("A", 4)
    desk.settle()
    desk.pass_time(0.25)
    alone = paced.messages("price")[-1]
    assert (alone["seq"], alone["prev"]) == (4, 3)
    assert not {"merged", "age_ms"} & alone.keys(), "nothing was merged, and nothing says so"
    desk.pass_time(0.25)
    assert len(paced.messages("price")) == 2, "nothing new, nothing sent"
    await desk.service.remove_connection("paced")
    await desk.price("A", 5)
    desk.settle()
    desk.pass_time(0.25)
    channel = desk.hub.channel("PRICE:A")
    assert channel is not None
    assert channel.conflated == {}, "a pace that nobody has any more costs nothing"


async def test_clients_of_one_pace_share_their_bytes_however_late_they_came() -> None:
    desk = await MarketRig.create()
    desk.pass_time(0)
    first, second = [
        await desk.client(name, "PRICE:A", interval_ms=100) for name in ("first", "second")
    ]
    await desk.price("A", 1)
    late = await desk.client("late", "PRICE:A", interval_ms=100)
    await desk.price("A", 2)
    desk.settle()
    desk.pass_time(0.1)
    assert first.written[0] is second.written[0]
    [merged], [single] = first.messages("price"), late.messages("price")
    assert (merged["seq"], merged["prev"], merged["merged"]) == (2, 0, 2)
    assert (single["seq"], single["prev"]) == (2, 1)
    assert "merged" not in single
    await desk.price("A", 3)
    desk.settle()
    desk.pass_time(0.1)
    assert late.written[-1] is first.written[-1]


async def test_levels_of_a_book_merge_into_one_change_that_leads_to_the_same_book() -> None:
    desk = await MarketRig.create()
    desk.pass_time(0)
    await desk.book("A", [("9", "1"), ("8", "1")], [("11", "1")], "snapshot")
    paced = await desk.client("paced", "ORDERBOOK:A", interval_ms=100)
    await desk.book("A", [("9", "0"), ("8.5", "2")], [])
    await desk.book("A", [("8.5", "3")], [("10", "4")])
    desk.settle()
    desk.pass_time(0.1)
    [message] = paced.messages("orderbook")
    assert (message["type"], message["merged"], message["prev"]) == ("update", 2, 1)
    latest = await desk.broker.latest("ORDERBOOK:A")
    assert latest is not None
    assert message["data"]["bids"] == [["9", "0"], ["8.5", "3"]]
    assert message["data"]["asks"] == [["10", "4"]]
    assert b'"checksum":%d}' % message["data"]["checksum"] in latest.data


async def test_where_the_changes_are_gone_the_whole_book_comes_instead() -> None:
    desk = await MarketRig.create(subscribing=SubscribingConfig(backlog_messages=2))
    desk.pass_time(0)
    await desk.book("A", [("9", "1")], [("11", "1")], "snapshot")
    paced = await desk.client("paced", "ORDERBOOK:A", interval_ms=1000)
    for quantity in "23456":
        await desk.book("A", [("9", quantity)], [])
    desk.settle()
    desk.pass_time(1.0)
    [message] = paced.messages("orderbook")
    assert (message["type"], message["merged"], message["prev"]) == ("snapshot", 5, 1)
    assert message["data"]["bids"] == [["9", "6"]]
    assert message["data"]["asks"] == [["11", "1"]]


async def test_the_pace_can_be_changed_by_subscribing_again_and_nothing_comes_twice() -> None:
    desk = await MarketRig.create()
    desk.pass_time(0)
    ann = await desk.client("ann", "PRICE:A", interval_ms=1000)
    await desk.price("A", 1)
    desk.settle()
    reply = await desk.subscribe("ann", "PRICE:A")
    assert (reply["PRICE:A"]["interval_ms"], reply["PRICE:A"]["seq"]) == (0, 1)
    await desk.price("A", 2)
    desk.settle()
    desk.pass_time(1.0)
    assert [(each["seq"], each["prev"]) for each in ann.messages("price")] == [(2, 1)]


@pytest.mark.behaviour("C9", "C15")
async def test_one_client_on_several_topics_gets_each_and_nothing_of_others() -> None:
    desk = await MarketRig.create()
    both = await desk.client("both", "PRICE:A", "TRADES:A")
    one = await desk.client("one", "PRICE:B")
    await desk.price("A")
    await desk.trade("A", 1)
    await desk.price("B")
    desk.settle()
    assert [event for event, _ in both.events()] == ["price", "trades"]
    assert {each["symbol"] for each in both.messages()} == {"A"}
    assert [each["symbol"] for each in one.messages()] == ["B"]


async def test_a_topic_of_a_paced_client_is_nobodys_when_the_client_has_left() -> None:
    desk = await MarketRig.create()
    await desk.client("ann", "PRICE:A", interval_ms=100)
    await desk.price("A")
    await desk.service.remove_connection("ann")
    desk.settle()
    desk.pass_time(1.0)
    assert desk.hub.channels() == ()


async def test_what_is_owed_and_served_with_its_pace_is_not_sent_again() -> None:
    desk = await MarketRig.create(DeliveryConfig(buffer_bytes=4096, stalled_seconds=0), STALE)
    await desk.price("A")
    desk.pass_time(11)
    ann = desk.connect("ann")
    ann.stall()
    ann.write(text_frame(b'["filler",{}]') * 100)
    # It is stale, which the client is to be told as soon as it reads.
    await desk.subscribe("ann", "PRICE:A", interval_ms=100)
    desk.settle()
    ann.read()
    # But its pace comes before its turn, and its way is full again.
    await desk.publishing.publish("PRICE:A", {**PRICE, "padding": "x" * 1500})
    desk.pass_time(0.2)
    desk.settle()
    assert ann.clogged
    ann.read()
    await desk.price("A")
    desk.pass_time(0.2)
    desk.settle()
    ann.resume()
    desk.settle()
    assert [(each["prev"], each["seq"]) for each in ann.messages("price")] == [(1, 2), (2, 3)]


async def test_compressed_clients_of_one_pace_share_the_bytes() -> None:
    desk = await MarketRig.create()
    ann, bob = [await desk.client(name, "PRICE:A", interval_ms=100) for name in ("ann", "bob")]
    ann.deflates = bob.deflates = True
    await desk.price("A")
    desk.pass_time(0.2)
    assert ann.written[-1] is bob.written[-1]


async def test_the_age_of_what_a_newcomer_lacks_counts_from_the_first_message_after_it_came() -> (
    None
):
    desk = await MarketRig.create()
    desk.pass_time(0)
    await desk.client("first", "PRICE:A", interval_ms=1000)
    await desk.price("A", 1)
    desk.settle()
    desk.pass_time(0.3)
    newcomer = await desk.client("newcomer", "PRICE:A", interval_ms=1000)
    desk.pass_time(0.2)
    for last in (2, 3):
        await desk.price("A", last)
        desk.settle()
        desk.pass_time(0.1)
    desk.pass_time(0.3)
    [message] = newcomer.messages("price")
    assert (message["merged"], message["prev"], message["age_ms"]) == (2, 1, 500)
