"""Which releases may share a Redis."""

import itertools
from collections.abc import Callable

import pytest

from server.brokers import Address, BrokerError, RedisBroker, RedisConfig
from server.brokers.redis.connection.schema import CURRENT, Schema
from server.core.counters import Counters
from server.ports import ignore
from tests.kit.clock import ManualClock
from tests.kit.redis.servers import RedisServer

_prefixes = itertools.count(1)
Create = Callable[[Schema], RedisBroker]


@pytest.fixture
def prefix() -> str:
    return f"schema{next(_prefixes)}"


@pytest.fixture
def create(shared_redis: RedisServer, prefix: str) -> Create:
    """Creates a process of a release, on one Redis."""

    def create(release: Schema) -> RedisBroker:
        address = Address.parse(shared_redis.url)
        config = RedisConfig(address, prefix=prefix, schema=release)
        return RedisBroker(ManualClock(), Counters(), config)

    return create


async def start(broker: RedisBroker) -> str:
    """Start and stop a process; "ok" or the error."""
    try:
        await broker.start(ignore)
        await broker.head("A")
    except BrokerError as error:
        return str(error)
    finally:
        await broker.stop()
    return "ok"


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (Schema(2, 1), Schema(2, 1), "ok"),
        (Schema(2, 1), Schema(3, 2), "ok"),
        (Schema(3, 2), Schema(2, 1), "ok"),
        (Schema(2, 1), Schema(4, 3), "older schema 2"),
        (Schema(4, 3), Schema(2, 1), "newer schema 4"),
    ],
)
async def test_release_shares_with_its_neighbours_only(
    first: Schema, second: Schema, outcome: str, create: Create
) -> None:
    assert await start(create(first)) == "ok"
    assert outcome in await start(create(second))


async def test_newest_schema_stays_recorded(
    create: Create, prefix: str, shared_redis: RedisServer
) -> None:
    for release in (Schema(2, 1), Schema(3, 2), Schema(2, 1)):
        assert await start(create(release)) == "ok"
    with shared_redis.client() as client:
        recorded = client.hgetall(f"{prefix}:schema")
    assert recorded == {b"schema": b"3", b"oldest": b"2"}
    assert "newer" in await start(create(Schema(1, 1)))


async def test_redis_of_the_release_before_has_no_schema(
    create: Create, prefix: str, shared_redis: RedisServer
) -> None:
    with shared_redis.client() as client:
        client.set(f"{prefix}:sessions", "left by the release before")
        assert await start(create(CURRENT)) == "ok"
        assert client.hget(f"{prefix}:schema", "schema") == str(CURRENT.version).encode()
