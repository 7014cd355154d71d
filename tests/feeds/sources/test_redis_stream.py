"""The feed `redis-stream` publishes each entry once, also if it is cut off at any moment."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from server.feeds import FeedError
from server.feeds.sources import redis_stream
from tests.feeds.sources.rig import SourceRig, source_rig, trade
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer, redis_server


@pytest.fixture(name="redis_process", scope="module")
def redis_process_of_module() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(name="client")
def client_of_an_empty_redis(redis_process: RedisServer) -> Iterator["redis.Redis"]:
    with redis_process.client() as client:
        client.flushall()
        yield client


async def rig_of(server: RedisServer, streams: object = "orders") -> SourceRig:
    return await source_rig("redis-stream", url=server.url, streams=streams)


def envelope(number: int) -> str:
    return json.dumps({"topic": "TRADES:A", "data": trade(number)})


def add(client: "redis.Redis", *numbers: int) -> None:
    for number in numbers:
        client.xadd("orders", {"message": envelope(number)})


async def test_entries_are_published_in_their_order(
    redis_process: RedisServer, client: "redis.Redis"
) -> None:
    rig = await rig_of(redis_process)
    add(client, 1, 2)
    async with rig.run():
        await until(lambda: rig.published("TRADES:A") == 2)
        add(client, 3)
        await until(lambda: rig.published("TRADES:A") == 3)
    assert await rig.numbers() == [1, 2, 3]


async def test_feed_that_is_cut_off_publishes_every_entry_once(
    redis_process: RedisServer, client: "redis.Redis"
) -> None:
    rig = await rig_of(redis_process)
    add(client, *range(1, 401))
    await rig.cut_off_often(20)
    await rig.run_until(400)
    assert await rig.numbers() == list(range(1, 401))
    # The last one may have been cut off before its acknowledgement.
    assert client.xpending("orders", "floorcast")["pending"] <= 1


async def test_fields_of_an_entry_can_be_the_envelope(
    redis_process: RedisServer, client: "redis.Redis"
) -> None:
    rig = await rig_of(redis_process, {"orders": "", "prices": "PRICE:B"})
    data = json.dumps(trade(1))
    fields: dict[Any, Any] = {"topic": "TRADES:A", "data": data, "source_ts": "1700000000000"}
    client.xadd("orders", fields)
    price = {"bid": "1", "ask": "2", "last": "1", "volume": "0"}
    client.xadd("prices", {"data": json.dumps(price)})
    async with rig.run():
        await until(lambda: rig.published("TRADES:A") + rig.published("PRICE:B") == 2)
    assert await rig.numbers() == [1]


async def test_entry_that_cannot_be_published_is_skipped(
    redis_process: RedisServer, client: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    rig = await rig_of(redis_process)
    for message in ("{", "[]", '{"topic": "NOPE", "data": {}}', '{"topic": "TRADES:A"}'):
        client.xadd("orders", {"message": message})
    add(client, 1)
    await rig.run_until(1)
    assert await rig.numbers() == [1]
    [logged] = [each for each in caplog.records if "skipped" in each.message]
    assert logged.message.startswith("a message of a source is skipped: not JSON")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, r"feed\.redis-stream\.streams: Field required"),
        ({"streams": ""}, r"feed\.redis-stream\.streams"),
        ({"streams": "a", "depth": 1}, r"feed\.redis-stream\.depth: Extra inputs"),
    ],
)
async def test_wrong_option_is_refused_with_its_name(
    options: dict[str, object], problem: str
) -> None:
    rig = await source_rig("redis-stream", **options)
    with pytest.raises(FeedError, match=problem):
        async with rig.run():
            pass


async def test_entries_that_a_dead_node_has_read_are_published_by_another(
    redis_process: RedisServer, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_stream, "_BLOCK_MS", 20)
    monkeypatch.setattr(redis_stream, "_PENDING_SECONDS", 0.05)
    rig = await rig_of(redis_process)
    add(client, 1)
    async with rig.run():
        await rig.until_published(1)
        with client.pipeline(transaction=True) as dying:
            # In one step, so that the feed is not faster.
            dying.xadd("orders", {"message": envelope(2)})
            dying.xreadgroup("floorcast", "floorcast", {"orders": ">"})
            dying.execute()
        await rig.until_published(2)
    assert await rig.numbers() == [1, 2]
