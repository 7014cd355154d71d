"""Tests slow consumers: merging, widened intervals, snapshots, disconnects."""

import pytest

from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.kit.rigs.market import MarketRig

SMALL = DeliveryConfig(buffer_bytes=4096, stalled_seconds=30.0)
SHORT = SubscribingConfig(backlog_messages=20)


async def flood(rig: MarketRig, symbol: str, count: int, first: int = 1) -> None:
    """Publish prices, each in its own turn."""
    for number in range(first, first + count):
        await rig.price(symbol, number)
        rig.run_scheduled()


@pytest.mark.behaviour("C11")
async def test_stalled_client_is_bounded_and_gets_the_latest_value() -> None:
    rig = await MarketRig.create(SMALL, subscribing=SHORT)
    slow, quick = await rig.client("slow", "PRICE:A"), await rig.client("quick", "PRICE:A")
    slow.stall()
    await flood(rig, "A", 500)
    assert slow.max_buffered_bytes <= SMALL.buffer_bytes
    assert len(quick.messages("price")) == 500
    before = len(slow.messages("price"))
    assert before < 20
    rig.clock.advance(2.0)
    slow.resume()
    rig.settle()
    caught_up = slow.messages("price")[before:]
    assert len(caught_up) == 1, "the missed messages were not merged into one"
    [message] = caught_up
    assert (message["seq"], message["prev"], message["data"]["last"]) == (500, before, "500")
    assert (message["merged"], message["age_ms"]) == (500 - before, 2000)
    await rig.price("A", 501)
    rig.settle()
    assert slow.written[-1] is quick.written[-1], "it does not share bytes after catching up"
    assert rig.counters.total("delivery.fell_behind") == 1
    assert rig.counters.total("delivery.merged") == 500 - before - 1


async def test_replayed_topic_continues_at_the_position_of_the_client() -> None:
    rig = await MarketRig.create(SMALL, subscribing=SHORT)
    slow = await rig.client("slow", "TRADES:A")
    slow.stall()
    for number in range(1, 21):
        await rig.trade("A", number)
        rig.run_scheduled()
    assert len(slow.messages("trades")) < 20
    slow.resume()
    rig.settle()
    assert [each["seq"] for each in slow.messages("trades")] == list(range(1, 21))
    assert all(each["prev"] == each["seq"] - 1 for each in slow.messages("trades"))
    assert not any("merged" in each for each in slow.messages("trades"))


async def test_messages_gone_from_history_become_a_snapshot() -> None:
    rig = await MarketRig.create(SMALL, subscribing=SHORT)
    slow = await rig.client("slow", "TRADES:A")
    slow.stall()
    for number in range(1, 101):
        await rig.trade("A", number)
        rig.run_scheduled()
    seen = len(slow.messages("trades"))
    slow.resume()
    rig.settle()
    [snapshot] = slow.messages("trades")[seen:]
    assert (snapshot["type"], snapshot["seq"], snapshot["prev"]) == ("snapshot", 100, seen)
    assert snapshot["data"]["trades"][0]["id"] == 100
    assert rig.counters.total("delivery.snapshots") == 1


async def test_topics_take_turns_while_a_client_catches_up() -> None:
    rig = await MarketRig.create(SMALL, subscribing=SHORT)
    slow = await rig.client("slow", "TRADES:A", "TRADES:B", "PRICE:C")
    slow.stall()
    await flood(rig, "C", 10)
    for number in range(1, 19):
        for symbol in "AB":
            await rig.trade(symbol, number)
        rig.run_scheduled()
    await rig.price("C", "99")
    rig.settle()
    order = []
    seen = len(slow.messages())
    for _ in range(40):
        slow.read()
        rig.run_scheduled()
        fresh = slow.messages()[seen:]
        seen += len(fresh)
        order += [each["symbol"] for each in fresh]
    turns = "".join(symbol for i, symbol in enumerate(order) if i == 0 or order[i - 1] != symbol)
    assert set(turns[:3]) == set("ABC"), turns
    assert slow.messages("trades")[-1]["seq"] == 18
    assert slow.messages("price")[-1]["data"]["last"] == "99"


async def test_slow_client_gets_a_longer_interval_until_it_keeps_up() -> None:
    rig = await MarketRig.create(SMALL, subscribing=SHORT)
    rig.pass_time(0)
    slow = await rig.client("slow", "PRICE:A", "TRADES:A")
    intervals = []
    for _ in range(5):
        slow.stall()
        await flood(rig, "A", 10)
        slow.resume()
        rig.settle()
        intervals.append(rig.service.subscriptions("slow")["PRICE:A"]["interval_ms"])
    assert intervals == [0, 0, 0, 100, 100]
    assert rig.service.subscriptions("slow")["TRADES:A"]["interval_ms"] == 0
    assert rig.counters.total("delivery.widened") == 1
    seen = len(slow.messages("price"))
    await flood(rig, "A", 10)
    rig.pass_time(0.1)
    assert len(slow.messages("price")) == seen + 1
    for _ in range(12):
        rig.pass_time(1.0)
    assert rig.service.subscriptions("slow")["PRICE:A"]["interval_ms"] == 0


async def test_stalled_client_is_disconnected() -> None:
    rig = await MarketRig.create(SMALL, subscribing=SHORT)
    slow, quick = await rig.client("slow", "PRICE:A"), await rig.client("quick", "PRICE:A")
    slow.stall()
    await flood(rig, "A", 50)
    for _ in range(29):
        rig.pass_time(1.0)
    assert slow.ended == []
    slow.read(10)
    for _ in range(29):
        rig.pass_time(1.0)
    assert slow.ended == [], "disconnected though it read a few bytes"
    rig.pass_time(3.0)
    assert slow.ended == ["server.overloaded"]
    assert quick.ended == []
    assert rig.counters.total("delivery.overloaded") == 1


async def test_client_without_stall_timeout_stays_connected() -> None:
    rig = await MarketRig.create(DeliveryConfig(buffer_bytes=4096, stalled_seconds=0))
    slow = await rig.client("slow", "PRICE:A")
    slow.stall()
    await flood(rig, "A", 50)
    for _ in range(10):
        rig.pass_time(100.0)
    assert slow.ended == []


@pytest.mark.behaviour("D11")
async def test_clogged_client_is_skipped() -> None:
    rig = await MarketRig.create(SMALL, subscribing=SHORT)
    slow, quick = await rig.client("slow", "PRICE:A"), await rig.client("quick", "PRICE:A")
    slow.clogged = True
    await rig.price("A")
    rig.settle()
    assert slow.written == []
    assert len(quick.written) == 1
    assert len(rig.hub.slow_consumers) == 1


@pytest.mark.behaviour("A12", "C14", "D9", "D15", "D29")
async def test_failed_write_aborts_only_that_client() -> None:
    rig = await MarketRig.create()
    for interval_ms in (0, 100):
        names = [f"{name}{interval_ms}" for name in ("one", "broken", "two")]
        links = [await rig.client(name, "PRICE:A", interval_ms=interval_ms) for name in names]
        links[1].broken = True
        await rig.price("A")
        rig.settle()
        rig.pass_time(0.1)
        assert [len(link.messages("price")) for link in links] == [1, 0, 1]
        assert links[1].aborted == ["a write failed"]
        for name in names:
            await rig.service.remove_connection(name)
    assert rig.hub.link_count == 0


@pytest.mark.behaviour("C18")
@pytest.mark.parametrize("buffer_bytes", [2048, 8192, 65536, 1024 * 1024])
async def test_buffer_bytes_bounds_what_waits_for_a_client(buffer_bytes: int) -> None:
    rig = await MarketRig.create(DeliveryConfig(buffer_bytes=buffer_bytes))
    slow = await rig.client("slow", "PRICE:A")
    slow.stall()
    await flood(rig, "A", buffer_bytes // 100)
    assert buffer_bytes // 4 < slow.max_buffered_bytes <= buffer_bytes // 2
    slow.resume()
    rig.settle()
    assert slow.messages("price")[-1]["seq"] == buffer_bytes // 100


async def test_large_turn_is_split_and_stops_at_a_clogged_link() -> None:
    rig = await MarketRig.create(SMALL, subscribing=SHORT)
    slow, quick = await rig.client("slow", "TRADES:A"), await rig.client("quick", "TRADES:A")
    slow.stall()
    for number in range(1, 19):
        await rig.trade("A", number)
    rig.run_scheduled()
    assert slow.max_buffered_bytes <= SMALL.buffer_bytes // 2
    assert [each["seq"] for each in quick.messages()] == list(range(1, 19))
    slow.resume()
    rig.settle()
    assert [each["seq"] for each in slow.messages()] == list(range(1, 19))


async def test_compressed_client_gets_a_deflated_frame() -> None:
    rig = await MarketRig.create()
    plain, small = await rig.client("plain", "PRICE:A"), await rig.client("small", "PRICE:A")
    small.deflates = True
    await rig.price("A")
    rig.run_scheduled()
    assert plain.written[0][0] == 0x81
    assert small.written[0][0] == 0xC1


async def test_many_book_changes_become_a_snapshot() -> None:
    rig = await MarketRig.create()
    link = await rig.client("slow", "ORDERBOOK:A")
    await rig.book("A", [("1", "1")], [("2", "1")], "snapshot")
    link.stall()
    while not link.clogged:
        await rig.book("A", [("1", "1")], [("2", "1")])
        rig.run_scheduled()
    missed_bytes = 0
    while missed_bytes < 80_000:
        sizes = [(str(price), str(1 + missed_bytes % 7)) for price in range(100, 300)]
        await rig.book("A", [], sizes)
        missed_bytes += 200 * len('["100","1"],')
        rig.run_scheduled()
    link.resume()
    rig.settle()
    message = link.messages("orderbook")[-1]
    assert message["type"] == "snapshot"
    assert len(message["data"]["asks"]) == 200
    assert message["merged"] == message["seq"] - message["prev"]


async def test_many_writable_clients_are_served_in_several_turns() -> None:
    rig = await MarketRig.create(SMALL)
    slow = [await rig.client(name, "PRICE:A") for name in ("ann", "bob", "carl")]
    for link in slow:
        link.stall()
    await flood(rig, "A", 50)
    assert all(link.clogged for link in slow)
    for link in slow:
        link.resume()
        # Each write takes long.
        link.on_write = lambda: rig.clock.advance(0.01)
    served = []
    for _ in slow:
        rig.run_scheduled()
        served.append(sum(link.messages("price")[-1]["seq"] == 50 for link in slow))
    assert served == [1, 2, 3]
