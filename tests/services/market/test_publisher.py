"""Publisher: order over threads, bounds, failures and shutdown."""

import asyncio
from concurrent.futures import Future

import pytest

from server.core.counters import Counters
from server.core.errors import FloorcastError, LimitError
from server.core.log.entries import Position
from server.services import FeedPublisher, Publisher
from server.tasks import TaskOwner
from tests.kit.rigs.market import PRICE, MarketRig, trader


async def started(max_queued: int = 10_000) -> tuple[MarketRig, Publisher]:
    market = await MarketRig.create()
    publisher = Publisher(market.publishing, TaskOwner(Counters()), max_queued=max_queued)
    await publisher.start()
    return market, publisher


@pytest.mark.behaviour("A17", "A18")
async def test_threads_publish_in_order_without_loss() -> None:
    market, publisher = await started()
    ann = await market.client("ann", *(f"TRADES:T{number}" for number in range(8)))

    def feed(number: int) -> list[int]:
        trade = {"price": "1", "qty": "1", "side": "buy", "ts": 1}
        futures = [
            publisher.publish(f"TRADES:T{number}", {"trades": [{"id": i, **trade}]})
            for i in range(200)
        ]
        return [future.result(10).seq for future in futures]

    seqs = await asyncio.gather(*(asyncio.to_thread(feed, number) for number in range(8)))
    assert seqs == [list(range(1, 201))] * 8
    market.settle()
    for number in range(8):
        mine = [each for each in ann.messages() if each["symbol"] == f"T{number}"]
        assert [each["data"]["trades"][0]["id"] for each in mine] == list(range(200))
    assert len(publisher) == 0
    await publisher.stop()


async def test_invalid_message_fails_its_future_only() -> None:
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


async def test_internal_error_fails_its_future_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    market, publisher = await started()

    async def fail(*_: object, **__: object) -> Position:
        raise ZeroDivisionError

    monkeypatch.setattr(market.publishing, "publish", fail)
    future = publisher.publish("PRICE:A", PRICE)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(future)
    monkeypatch.undo()
    assert await asyncio.wrap_future(publisher.publish("PRICE:A", PRICE)) == Position("e1", 1)
    await publisher.stop()


async def test_full_queue_refuses_at_once() -> None:
    _, publisher = await started(max_queued=3)
    futures = [publisher.publish("PRICE:A", PRICE) for _ in range(3)]
    with pytest.raises(LimitError) as refused:
        publisher.publish("PRICE:A", PRICE)
    assert refused.value.code == "server.overloaded"
    assert [(await asyncio.wrap_future(each)).seq for each in futures] == [1, 2, 3]
    assert (await asyncio.wrap_future(publisher.publish("PRICE:A", PRICE))).seq == 4
    await publisher.stop()


async def test_cancelled_message_is_not_published() -> None:
    market, publisher = await started()
    cancelled, wanted = [publisher.publish("PRICE:A", PRICE) for _ in range(2)]
    assert cancelled.cancel()
    assert (await asyncio.wrap_future(wanted)).seq == 1
    assert await market.broker.head("PRICE:A") == Position("e1", 1)
    await publisher.stop()


async def test_stop_fails_queued_messages() -> None:
    _, publisher = await started()
    waiting: Future[Position] = publisher.publish("PRICE:A", PRICE)
    await publisher.stop()
    with pytest.raises(FloorcastError) as refused:
        waiting.result(0)
    assert refused.value.code == "server.draining"
    with pytest.raises(FloorcastError):
        await asyncio.to_thread(publisher.publish, "PRICE:A", PRICE)


async def test_stop_with_a_cancelled_message_fails_the_others() -> None:
    _, publisher = await started()
    cancelled, waiting = (publisher.publish("PRICE:A", PRICE) for _ in range(2))
    cancelled.cancel()
    await publisher.stop()
    assert isinstance(waiting.exception(0), FloorcastError)


async def test_busy_feed_and_long_batch_yield_to_other_tasks() -> None:
    market = await MarketRig.create()
    iterations = 0

    async def other() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    other_task = asyncio.create_task(other())
    feed_publisher = FeedPublisher(market.publishing)
    for _ in range(1000):
        await feed_publisher.publish("PRICE:A", PRICE)
    assert iterations >= 10
    market.publish_seconds = 0.0001
    before = iterations
    message = {"topic": "PRICE:A", "data": PRICE}
    outcomes = await market.client_publishing.publish(trader("feed"), [message] * 1000)
    assert len(outcomes) == 1000
    assert iterations - before >= 60
    other_task.cancel()
