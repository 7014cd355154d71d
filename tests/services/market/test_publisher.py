"""The publisher for threads: in order, bounded, and never a caller that waits for ever."""

import asyncio
from concurrent.futures import Future

import pytest

from server.core.errors import FloorcastError, LimitError
from server.core.log.entries import Position
from server.services import FeedPublisher, Publisher
from tests.kit.rigs.market import PRICE, MarketRig, trader


async def started(max_waiting: int = 10_000) -> tuple[MarketRig, Publisher]:
    desk = await MarketRig.create()
    publisher = Publisher(desk.publishing, max_queued=max_waiting)
    await publisher.start()
    return desk, publisher


@pytest.mark.behaviour("A17", "A18")
async def test_many_threads_publish_at_once_and_nothing_is_lost_or_out_of_order() -> None:
    desk, publisher = await started()
    ann = await desk.client("ann", *(f"TRADES:T{number}" for number in range(8)))

    def feed(number: int) -> list[int]:
        trade = {"price": "1", "qty": "1", "side": "buy", "ts": 1}
        futures = [
            publisher.publish(f"TRADES:T{number}", {"trades": [{"id": i, **trade}]})
            for i in range(200)
        ]
        return [future.result(10).seq for future in futures]

    seqs = await asyncio.gather(*(asyncio.to_thread(feed, number) for number in range(8)))
    assert seqs == [list(range(1, 201))] * 8
    desk.settle()
    for number in range(8):
        mine = [each for each in ann.messages() if each["symbol"] == f"T{number}"]
        assert [each["data"]["trades"][0]["id"] for each in mine] == list(range(200))
    assert len(publisher) == 0
    await publisher.stop()


async def test_what_is_wrong_comes_back_to_the_thread_and_the_rest_goes_on() -> None:
    _, publisher = await started()

    def feed() -> list[object]:
        futures = [
            publisher.publish("NOISE", {}),
            publisher.publish("PRICE:A", {**PRICE, "bid": object()}),
            publisher.publish("PRICE:A", PRICE),
        ]
        return [future.exception(10) or future.result(10) for future in futures]

    unknown, invalid, position = await asyncio.to_thread(feed)
    assert isinstance(unknown, FloorcastError)
    assert unknown.code == "topic.unknown"
    assert isinstance(invalid, FloorcastError)
    assert position == Position("e1", 1)
    await publisher.stop()


async def test_a_fault_of_ours_is_told_and_does_not_end_the_publisher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, publisher = await started()

    async def fail(*_: object, **__: object) -> Position:
        raise ZeroDivisionError

    monkeypatch.setattr(desk.publishing, "publish", fail)
    future = publisher.publish("PRICE:A", PRICE)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(future)
    monkeypatch.undo()
    assert await asyncio.wrap_future(publisher.publish("PRICE:A", PRICE)) == Position("e1", 1)
    await publisher.stop()


async def test_a_queue_that_is_full_refuses_at_once() -> None:
    _, publisher = await started(max_waiting=3)
    futures = [publisher.publish("PRICE:A", PRICE) for _ in range(3)]
    with pytest.raises(LimitError) as refused:
        publisher.publish("PRICE:A", PRICE)
    assert refused.value.code == "server.overloaded"
    assert [(await asyncio.wrap_future(each)).seq for each in futures] == [1, 2, 3]
    assert (await asyncio.wrap_future(publisher.publish("PRICE:A", PRICE))).seq == 4
    await publisher.stop()


async def test_a_message_that_its_thread_gave_up_is_not_published() -> None:
    desk, publisher = await started()
    given_up, wanted = [publisher.publish("PRICE:A", PRICE) for _ in range(2)]
    assert given_up.cancel()
    assert (await asyncio.wrap_future(wanted)).seq == 1
    assert await desk.broker.head("PRICE:A") == Position("e1", 1)
    await publisher.stop()


async def test_when_the_server_stops_nobody_waits_for_ever() -> None:
    _, publisher = await started()
    waiting: Future[Position] = publisher.publish("PRICE:A", PRICE)
    await publisher.stop()
    with pytest.raises(FloorcastError) as refused:
        waiting.result(0)
    assert refused.value.code == "server.draining"
    with pytest.raises(FloorcastError):
        await asyncio.to_thread(publisher.publish, "PRICE:A", PRICE)


async def test_a_message_given_up_before_the_end_keeps_no_other_from_its_answer() -> None:
    _, publisher = await started()
    given_up, waiting = (publisher.publish("PRICE:A", PRICE) for _ in range(2))
    given_up.cancel()
    await publisher.stop()
    assert isinstance(waiting.exception(0), FloorcastError)


async def test_a_feed_that_never_waits_and_a_long_batch_let_others_have_their_turn() -> None:
    desk = await MarketRig.create()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    feeding = FeedPublisher(desk.publishing)
    for _ in range(1000):
        await feeding.publish("PRICE:A", PRICE)
    assert turns >= 10
    before = turns
    message = {"topic": "PRICE:A", "data": PRICE}
    outcomes = await desk.client_publishing.publish(trader("feed"), [message] * 1000)
    assert len(outcomes) == 1000
    assert turns - before >= 10
    beside.cancel()
