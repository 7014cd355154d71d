"""The feed `nats` publishes each message of a stream once, and those of subjects as they come."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import nats
import pytest
from nats.aio.client import Client

from server.feeds import FeedError
from tests.feeds.sources.rig import source_rig, trade
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.sources.programs import nats_server

pytestmark = pytest.mark.processes


@pytest.fixture(name="url", scope="module")
def url_of_a_server() -> Iterator[str]:
    with nats_server() as url:
        yield url


@pytest.fixture(name="client")
async def client_of_the_server(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(url)
    yield client
    await client.close()


def envelope(number: int) -> bytes:
    return json.dumps({"topic": "TRADES:A", "data": trade(number)}).encode()


async def test_stream_is_published_once_by_a_feed_that_is_cut_off(url: str, client: Client) -> None:
    stream = client.jetstream()
    await stream.add_stream(name="orders", subjects=["orders.>"])
    for number in range(1, 301):
        await stream.publish("orders.new", envelope(number))
    rig = await source_rig("nats", url=url, subjects="orders.>", stream="orders")
    await rig.cut_off_often(15)
    await rig.run_until(300)
    assert await rig.numbers() == list(range(1, 301))


async def test_subject_is_mapped_to_a_topic(url: str, client: Client) -> None:
    rig = await source_rig("nats", url=url, subjects={"trades.*": "TRADES:{1}"})
    async with rig.run():
        sent = 0
        while not rig.published("TRADES:BTCUSDT"):
            # The subscription may take a moment: what is sent before is lost.
            sent += 1
            await client.publish("trades.btcusdt", json.dumps(trade(sent)).encode())
            await client.flush()
    assert (await rig.numbers("TRADES:BTCUSDT"))[0] >= 1


async def test_lost_connection_fails_the_feed() -> None:
    with nats_server() as url:
        rig = await source_rig("nats", url=url, subjects="a")
        feed = rig.start()
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            client = await nats.connect(url)
            while not rig.published("TRADES:A"):
                await client.publish("a", envelope(1))
                await client.flush()
            await client.close()
    with pytest.raises(ConnectionError, match="the connection to NATS is lost"):
        await feed


async def test_stream_takes_one_subject() -> None:
    rig = await source_rig("nats", subjects="a,b", stream="s")
    with pytest.raises(FeedError, match=r"feed\.nats: a consumer of a stream has one subject"):
        async with rig.run():
            pass
