"""A client that does not take its bytes: merged, slowed down, told, let go; others unhurt."""

import pytest

from server.delivery import DeliveryConfig
from server.services import SubscribingConfig
from tests.kit.rigs.market import MarketRig

SMALL = DeliveryConfig(buffer_bytes=4096, stalled_seconds=30.0)
SHORT = SubscribingConfig(backlog_messages=20)


async def flood(desk: MarketRig, symbol: str, count: int, first: int = 1) -> None:
    """Prices, each in a turn of its own."""
    for number in range(first, first + count):
        await desk.price(symbol, number)
        desk.run_scheduled()


@pytest.mark.behaviour("C11")
async def test_a_stalled_client_costs_bounded_memory_and_comes_back_to_the_latest_value() -> None:
    desk = await MarketRig.create(SMALL, subscribing=SHORT)
    slow, quick = await desk.client("slow", "PRICE:A"), await desk.client("quick", "PRICE:A")
    slow.stall()
    await flood(desk, "A", 500)
    assert slow.max_buffered_bytes <= SMALL.buffer_bytes
    assert len(quick.messages("price")) == 500
    before = len(slow.messages("price"))
    assert before < 20
    desk.clock.advance(2.0)
    slow.resume()
    desk.settle()
    caught_up = slow.messages("price")[before:]
    assert len(caught_up) == 1, "one message stands for all that was missed"
    [message] = caught_up
    assert (message["seq"], message["prev"], message["data"]["last"]) == (500, before, "500")
    assert (message["merged"], message["age_ms"]) == (500 - before, 2000)
    await desk.price("A", 501)
    desk.settle()
    assert slow.written[-1] is quick.written[-1], "from then on it is like the others"
    assert desk.counters.total("delivery.fell_behind") == 1
    assert desk.counters.total("delivery.merged") == 500 - before - 1


async def test_kept_messages_are_replayed_from_where_the_client_stood() -> None:
    desk = await MarketRig.create(SMALL, subscribing=SHORT)
    slow = await desk.client("slow", "TRADES:A")
    slow.stall()
    for number in range(1, 21):
        await desk.trade("A", number)
        desk.run_scheduled()
    assert len(slow.messages("trades")) < 20
    slow.resume()
    desk.settle()
    assert [each["seq"] for each in slow.messages("trades")] == list(range(1, 21))
    assert all(each["prev"] == each["seq"] - 1 for each in slow.messages("trades"))
    assert not any("merged" in each for each in slow.messages("trades"))


async def test_kept_messages_that_are_gone_are_told_and_not_skipped_in_silence() -> None:
    desk = await MarketRig.create(SMALL, subscribing=SHORT)
    slow = await desk.client("slow", "TRADES:A")
    slow.stall()
    for number in range(1, 101):
        await desk.trade("A", number)
        desk.run_scheduled()
    seen = len(slow.messages("trades"))
    slow.resume()
    desk.settle()
    [told] = slow.messages("trades")[seen:]
    assert (told["type"], told["seq"], told["prev"]) == ("snapshot", 100, seen)
    assert told["data"]["trades"][0]["id"] == 100
    assert desk.counters.total("delivery.snapshots") == 1


async def test_no_topic_starves_another_while_a_client_catches_up() -> None:
    desk = await MarketRig.create(SMALL, subscribing=SHORT)
    slow = await desk.client("slow", "TRADES:A", "TRADES:B", "PRICE:C")
    slow.stall()
    await flood(desk, "C", 10)
    for number in range(1, 19):
        for symbol in "AB":
            await desk.trade(symbol, number)
        desk.run_scheduled()
    await desk.price("C", "99")
    desk.settle()
    order = []
    seen = len(slow.messages())
    for _ in range(40):
        slow.read()
        desk.run_scheduled()
        fresh = slow.messages()[seen:]
        seen += len(fresh)
        order += [each["symbol"] for each in fresh]
    turns = "".join(symbol for i, symbol in enumerate(order) if i == 0 or order[i - 1] != symbol)
    assert set(turns[:3]) == set("ABC"), turns
    assert slow.messages("trades")[-1]["seq"] == 18
    assert slow.messages("price")[-1]["data"]["last"] == "99"


async def test_who_is_too_slow_again_and_again_is_served_less_often_until_it_keeps_up() -> None:
    desk = await MarketRig.create(SMALL, subscribing=SHORT)
    desk.pass_time(0)
    slow = await desk.client("slow", "PRICE:A", "TRADES:A")
    paces = []
    for _ in range(5):
        slow.stall()
        await flood(desk, "A", 10)
        slow.resume()
        desk.settle()
        paces.append(desk.service.subscriptions("slow")["PRICE:A"]["interval_ms"])
    assert paces == [0, 0, 0, 100, 100]
    assert desk.service.subscriptions("slow")["TRADES:A"]["interval_ms"] == 0
    assert desk.counters.total("delivery.widened") == 1
    seen = len(slow.messages("price"))
    await flood(desk, "A", 10)
    desk.pass_time(0.1)
    assert len(slow.messages("price")) == seen + 1
    for _ in range(12):
        desk.pass_time(1.0)
    assert desk.service.subscriptions("slow")["PRICE:A"]["interval_ms"] == 0


async def test_who_takes_nothing_for_too_long_is_told_goodbye() -> None:
    desk = await MarketRig.create(SMALL, subscribing=SHORT)
    slow, quick = await desk.client("slow", "PRICE:A"), await desk.client("quick", "PRICE:A")
    slow.stall()
    await flood(desk, "A", 50)
    for _ in range(29):
        desk.pass_time(1.0)
    assert slow.ended == []
    slow.read(10)
    for _ in range(29):
        desk.pass_time(1.0)
    assert slow.ended == [], "it has taken a little"
    desk.pass_time(3.0)
    assert slow.ended == ["server.overloaded"]
    assert quick.ended == []
    assert desk.counters.total("delivery.overloaded") == 1


async def test_a_client_that_has_time_for_ever_is_never_told_goodbye() -> None:
    desk = await MarketRig.create(DeliveryConfig(buffer_bytes=4096, stalled_seconds=0))
    slow = await desk.client("slow", "PRICE:A")
    slow.stall()
    await flood(desk, "A", 50)
    for _ in range(10):
        desk.pass_time(100.0)
    assert slow.ended == []


@pytest.mark.behaviour("D11")
async def test_a_client_that_cannot_be_written_to_is_passed_over() -> None:
    desk = await MarketRig.create(SMALL, subscribing=SHORT)
    slow, quick = await desk.client("slow", "PRICE:A"), await desk.client("quick", "PRICE:A")
    slow.clogged = True
    await desk.price("A")
    desk.settle()
    assert slow.written == []
    assert len(quick.written) == 1
    assert len(desk.hub.slow_consumers) == 1


@pytest.mark.behaviour("A12", "C14", "D9", "D15", "D29")
async def test_a_write_that_fails_ends_that_client_and_the_others_are_served() -> None:
    desk = await MarketRig.create()
    for pace in (0, 100):
        names = [f"{name}{pace}" for name in ("one", "broken", "two")]
        links = [await desk.client(name, "PRICE:A", interval_ms=pace) for name in names]
        links[1].broken = True
        await desk.price("A")
        desk.settle()
        desk.pass_time(0.1)
        assert [len(link.messages("price")) for link in links] == [1, 0, 1]
        assert links[1].aborted == ["a write failed"]
        for name in names:
            await desk.service.remove_connection(name)
    assert desk.hub.link_count == 0


@pytest.mark.behaviour("C18")
@pytest.mark.parametrize("buffer_bytes", [2048, 8192, 65536, 1024 * 1024])
async def test_how_much_waits_for_a_client_is_a_setting(buffer_bytes: int) -> None:
    desk = await MarketRig.create(DeliveryConfig(buffer_bytes=buffer_bytes))
    slow = await desk.client("slow", "PRICE:A")
    slow.stall()
    await flood(desk, "A", buffer_bytes // 100)
    assert buffer_bytes // 4 < slow.max_buffered_bytes <= buffer_bytes // 2
    slow.resume()
    desk.settle()
    assert slow.messages("price")[-1]["seq"] == buffer_bytes // 100


async def test_more_than_fits_in_one_turn_goes_out_in_pieces_and_stops_where_the_client_stops() -> (
    None
):
    desk = await MarketRig.create(SMALL, subscribing=SHORT)
    slow, quick = await desk.client("slow", "TRADES:A"), await desk.client("quick", "TRADES:A")
    slow.stall()
    for number in range(1, 19):
        await desk.trade("A", number)
    desk.run_scheduled()
    assert slow.max_buffered_bytes <= SMALL.buffer_bytes // 2
    assert [each["seq"] for each in quick.messages()] == list(range(1, 19))
    slow.resume()
    desk.settle()
    assert [each["seq"] for each in slow.messages()] == list(range(1, 19))


async def test_a_compressed_client_gets_the_same_messages() -> None:
    desk = await MarketRig.create()
    plain, small = await desk.client("plain", "PRICE:A"), await desk.client("small", "PRICE:A")
    small.deflates = True
    await desk.price("A")
    desk.run_scheduled()
    assert plain.written[0][0] == 0x81
    assert small.written[0][0] == 0xC1


async def test_so_many_changes_of_a_book_that_merging_them_takes_long_are_a_snapshot() -> None:
    desk = await MarketRig.create()
    link = await desk.client("slow", "ORDERBOOK:A")
    link.stall()
    while not link.clogged:
        await desk.book("A", [("1", "1")], [("2", "1")])
        desk.run_scheduled()
    missed_bytes = 0
    while missed_bytes < 80_000:
        sizes = [(str(price), str(1 + missed_bytes % 7)) for price in range(100, 300)]
        await desk.book("A", [], sizes)
        missed_bytes += 200 * len('["100","1"],')
        desk.run_scheduled()
    link.resume()
    desk.settle()
    message = link.messages("orderbook")[-1]
    assert message["type"] == "snapshot"
    assert len(message["data"]["asks"]) == 200
    assert message["merged"] == message["seq"] - message["prev"]


async def test_many_who_read_again_at_once_are_served_in_several_turns() -> None:
    desk = await MarketRig.create(SMALL)
    slow = [await desk.client(name, "PRICE:A") for name in ("ann", "bob", "carl")]
    for link in slow:
        link.stall()
    await flood(desk, "A", 50)
    assert all(link.clogged for link in slow)
    for link in slow:
        link.resume()
        # Serving each takes long.
        link.on_write = lambda: desk.clock.advance(0.01)
    served = []
    for _ in slow:
        desk.run_scheduled()
        served.append(sum(link.messages("price")[-1]["seq"] == 50 for link in slow))
    assert served == [1, 2, 3]
