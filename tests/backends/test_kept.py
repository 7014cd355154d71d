"""Values that are kept until a time, with each backend."""

import asyncio

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import RedisBroker
from server.core.errors import LimitError
from server.core.kept import KeptLimits
from tests.backends.conftest import URLS, url_of
from tests.kit.clock import START
from tests.kit.patience import until
from tests.kit.rigs.kept_cluster import KIND, KeptCluster

SOON, LATER = START + 10, START + 100


@pytest.fixture(name="kept", params=["memory", "file", *URLS])
def create_cluster(request: pytest.FixtureRequest) -> KeptCluster:
    return KeptCluster(url_of(request))


@pytest.fixture(name="shared", params=[*URLS])
def create_shared_cluster(request: pytest.FixtureRequest) -> KeptCluster:
    return KeptCluster(url_of(request))


async def test_value_stays_until_its_time(kept: KeptCluster) -> None:
    async with kept.node() as node:
        await node.kept.put(KIND, {"a": b"\x00{1} 2", "b": b""}, expires_at=SOON)
        await node.kept.put(KIND, {"c": b"3"}, expires_at=LATER)
        await node.kept.put("other", {"a": b"9"}, expires_at=LATER)
        assert await node.kept.items(KIND) == {"a": b"\x00{1} 2", "b": b"", "c": b"3"}
        assert await node.kept.get(KIND, "a") == b"\x00{1} 2"
        kept.clock.advance(10)
        node.kept.sweep()
        assert await node.kept.get(KIND, "a") is None
        assert await node.kept.items(KIND) == {"c": b"3"}
        assert await node.kept.items("other") == {"a": b"9"}
        assert node.known == {"c": b"3"}


async def test_later_put_replaces_value_and_time(kept: KeptCluster) -> None:
    async with kept.node() as node:
        await node.kept.put(KIND, {"a": b"1"}, expires_at=SOON)
        await node.kept.put(KIND, {"a": b"2"}, expires_at=LATER)
        kept.clock.advance(50)
        node.kept.sweep()
        assert await node.kept.get(KIND, "a") == b"2"
        assert node.changes == [("a", b"1"), ("a", b"2")]
        await node.kept.put(KIND, {"a": b"3"}, expires_at=SOON)
        assert await node.kept.get(KIND, "a") == b"2"


async def test_deleted_value_is_gone(kept: KeptCluster) -> None:
    async with kept.node() as node:
        await node.kept.put(KIND, {"a": b"1", "b": b"2"}, expires_at=LATER)
        assert await node.kept.delete(KIND, "a")
        assert not await node.kept.delete(KIND, "a")
        assert await node.kept.items(KIND) == {"b": b"2"}
        assert node.changes == [("a", b"1"), ("b", b"2"), ("a", None)]
        await node.kept.put(KIND, {"a": b"3"}, expires_at=LATER)
        assert await node.kept.get(KIND, "a") == b"3"


async def test_kind_has_room_for_a_number_of_values(kept: KeptCluster) -> None:
    async with kept.node(KeptLimits(max_values=3, put_bytes=100)) as node:
        await node.kept.put(KIND, {"a": b"1", "b": b"1"}, expires_at=SOON)
        with pytest.raises(LimitError, match="too much is kept of revoked") as refused:
            await node.kept.put(KIND, {"b": b"2", "c": b"2", "d": b"2"}, expires_at=LATER)
        assert refused.value.code == ErrorCode.SERVER_OVERLOADED
        await node.kept.put(KIND, {"b": b"3", "c": b"3"}, expires_at=LATER)
        assert await node.kept.items(KIND) == {"a": b"1", "b": b"3", "c": b"3"}
        kept.clock.advance(10)
        await node.kept.put(KIND, {"d": b"4"}, expires_at=LATER)
        with pytest.raises(LimitError, match="101 bytes are too many to keep in one call"):
            await node.kept.put(KIND, {"d": b"4" * 100}, expires_at=LATER)
        assert await node.kept.get(KIND, "d") == b"4"


async def test_key_needs_characters(kept: KeptCluster) -> None:
    async with kept.node() as node:
        for key in ("", "a" * 513):
            with pytest.raises(ValueError, match="a key has 1 to 512 characters"):
                await node.kept.put(KIND, {key: b""}, expires_at=LATER)


async def test_other_nodes_learn_of_every_change(shared: KeptCluster) -> None:
    async with shared.node() as one, shared.node() as other:
        for each in range(20):
            node = (one, other)[each % 2]
            await node.kept.put(KIND, {"a": b"%d" % each, f"b{each}": b"x"}, expires_at=LATER)
        await one.kept.delete(KIND, "b0")
        await other.kept.put(KIND, {"a": b"end"}, expires_at=LATER)
        expected = await one.kept.items(KIND)
        assert len(expected) == 20
        for node in (one, other):
            # A node knows its own change at once, and may hear earlier ones after it.
            await until(lambda node=node: node.known == expected)


async def test_later_node_begins_with_all_values(kept: KeptCluster) -> None:
    if kept.is_in_memory:
        pytest.skip("memory ends with its process")
    async with kept.node() as node:
        await node.kept.put(KIND, {"a": b"1", "b": b"2"}, expires_at=LATER)
        await node.kept.put(KIND, {"c": b"2"}, expires_at=SOON)
        await node.kept.delete(KIND, "b")
    kept.clock.advance(20)
    async with kept.node() as node:
        assert node.known == {"a": b"1"}
        assert await node.kept.items(KIND) == {"a": b"1"}


async def test_missed_change_is_read(shared: KeptCluster) -> None:
    async with shared.node() as one, shared.node() as other:
        await one.kept.put(KIND, {"a": b"1"}, expires_at=LATER)
        await until(lambda: other.known)
        broker = other.broker
        assert isinstance(broker, RedisBroker)
        listeners, broker._subscriber._listeners = broker._subscriber._listeners, []
        await one.kept.put(KIND, {"b": b"2"}, expires_at=LATER)
        await one.kept.delete(KIND, "a")
        # Deaf for so long that both have been sent.
        await asyncio.sleep(0.2)
        broker._subscriber._listeners = listeners
        await one.kept.put(KIND, {"c": b"3"}, expires_at=LATER)
        await until(lambda: other.known == {"b": b"2", "c": b"3"})


async def test_interrupted_node_reads_all_values_again(shared: KeptCluster) -> None:
    async with shared.node() as one, shared.node() as other:
        await one.kept.put(KIND, {"a": b"1"}, expires_at=LATER)
        await until(lambda: other.known)
        broker = other.broker
        assert isinstance(broker, RedisBroker)
        # What the connection had received is lost with it.
        listeners, broker._subscriber._listeners = broker._subscriber._listeners, []
        await one.kept.put(KIND, {"b": b"2"}, expires_at=LATER)
        await asyncio.sleep(0.2)
        broker._subscriber._listeners = listeners
        await broker._subscriber.reconnect()
        await until(lambda: other.known == {"a": b"1", "b": b"2"})
