"""The feed `kafka` publishes each message of its topics once.

The broker is the one for tests that librdkafka has: a real one cannot be had here.
"""

import json
from collections.abc import Iterator

import pytest

from server.feeds import FeedError
from tests.feeds.sources.rig import source_rig, trade
from tests.kit.sources.programs import KafkaBroker

pytestmark = pytest.mark.processes


@pytest.fixture(name="broker", scope="module")
def running_broker() -> Iterator[KafkaBroker]:
    broker = KafkaBroker()
    yield broker
    broker.stop()


def envelope(number: int, topic: str = "TRADES:A") -> bytes:
    return json.dumps({"topic": topic, "data": trade(number)}).encode()


async def test_topic_is_published_once_by_a_feed_that_is_cut_off(broker: KafkaBroker) -> None:
    broker.produce("orders", *map(envelope, range(1, 301)))
    rig = await source_rig("kafka", servers=broker.address, topics="orders")
    await rig.cut_off_often(15)
    await rig.run_until(300)
    assert await rig.numbers() == list(range(1, 301))


async def test_feed_goes_on_after_the_committed_offset(broker: KafkaBroker) -> None:
    broker.produce("kept", *map(envelope, range(1, 6)))
    rig = await source_rig("kafka", servers=broker.address, topics="kept")
    await rig.run_until(5)
    other = await source_rig("kafka", servers=broker.address, topics="kept")
    broker.produce("kept", envelope(6))
    await other.run_until(1)
    assert await other.numbers() == [6], "another market, which knows no ids of the first five"


async def test_all_partitions_and_topics_are_read(broker: KafkaBroker) -> None:
    for partition in range(3):
        broker.produce("wide", envelope(partition), partition=partition)
    broker.produce("trades", json.dumps(trade(7)).encode(), key="btcusdt")
    topics = {"wide": "", "trades": "TRADES:{1}"}
    rig = await source_rig("kafka", servers=broker.address, topics=topics)
    async with rig.run():
        await rig.until_published(3)
        await rig.until_published(1, "TRADES:BTCUSDT")
    assert sorted(await rig.numbers()) == [0, 1, 2]


async def test_message_that_cannot_be_published_is_skipped(broker: KafkaBroker) -> None:
    broker.produce("bad", b"{", b"\xff", b'{"topic": "NO:A", "data": {}}', envelope(1))
    rig = await source_rig("kafka", servers=broker.address, topics="bad")
    await rig.run_until(1)
    assert await rig.numbers() == [1]


async def test_two_feeds_of_one_market_publish_each_message_once(broker: KafkaBroker) -> None:
    broker.produce("two", *map(envelope, range(1, 101)))
    rig = await source_rig("kafka", servers=broker.address, topics="two")
    async with rig.run(), rig.run():
        await rig.until_published(100)
    assert await rig.numbers() == list(range(1, 101))


async def test_broker_that_ends_fails_the_feed() -> None:
    broker = KafkaBroker()
    broker.produce("ended", envelope(1))
    rig = await source_rig("kafka", servers=broker.address, topics="ended")
    feed = rig.start()
    await rig.until_published(1)
    broker.stop()
    with pytest.raises(ConnectionError, match="the connection to Kafka is lost"):
        await feed


async def test_login_needs_a_password() -> None:
    rig = await source_rig("kafka", topics="a", security="SASL_SSL", username="ann")
    with pytest.raises(FeedError, match=r"feed\.kafka: SASL needs a username and a password"):
        async with rig.run():
            pass
