"""The Redis broker over several nodes: ordering, bounds, lost data, and foreign writes."""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson
import pytest

from floorcast.testing import Bounds
from server.brokers import Address, BrokerError, RedisBroker, RedisConfig
from server.core.counters import Counters
from server.core.errors import FloorcastError, LimitError
from server.core.log.entries import Position
from server.core.log.idempotency import Claim
from tests.kit.clock import START, ManualClock
from tests.kit.redis.acl import ACCOUNT, grant, server_rights
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.rigs.broker_cluster import BrokerCluster, BrokerNode

NOW_MS = int(START * 1000)


@pytest.fixture
def cluster(shared_redis: RedisServer) -> BrokerCluster:
    return BrokerCluster("redis", shared_redis.url)


@pytest.fixture
async def nodes(cluster: BrokerCluster) -> AsyncIterator[tuple[BrokerNode, BrokerNode]]:
    """Two running nodes of the cluster."""
    async with cluster.running() as one, cluster.running() as other:
        yield one, other


async def test_all_nodes_deliver_in_the_same_order(nodes: tuple[BrokerNode, BrokerNode]) -> None:
    for node in nodes:
        await node.broker.watch("A")

    async def publish(node: BrokerNode, name: str) -> list[int]:
        messages = [b'{"n":"%b%d"}' % (name.encode(), number) for number in range(100)]
        receipts = await asyncio.gather(
            *(node.broker.publish("A", each, NOW_MS, in_history=True) for each in messages)
        )
        return [each.position.seq for each in receipts]

    one, other = await asyncio.gather(*map(publish, nodes, "ab"))
    for node in nodes:
        await node.wait_for_entries(200)
    assert nodes[0].entries == nodes[1].entries
    assert sorted(one + other) == list(range(1, 201))
    texts = [orjson.loads(each.data)["n"] for each in nodes[0].entries]
    for name in "ab":
        assert [each for each in texts if each[0] == name] == [f"{name}{n}" for n in range(100)]


async def test_later_node_finds_published_entries(cluster: BrokerCluster) -> None:
    async with cluster.running() as one:
        receipt = await one.broker.publish("A", b"{}", NOW_MS, in_history=True)
    async with cluster.running() as other:
        assert await other.broker.head("A") == receipt.position
        before = Position(receipt.position.epoch, 0)
        assert [each.position.seq for each in await other.broker.since("A", before) or ()] == [1]


async def test_all_nodes_agree_on_the_epoch_of_an_empty_channel(
    nodes: tuple[BrokerNode, BrokerNode],
) -> None:
    head = await nodes[0].broker.head("A")
    assert await nodes[1].broker.head("A") == head
    receipt = await nodes[1].broker.publish("A", b"{}", NOW_MS)
    assert receipt.position == Position(head.epoch, 1)


async def test_forget_keeps_a_channel_watched_by_another_node(
    nodes: tuple[BrokerNode, BrokerNode],
) -> None:
    await nodes[0].broker.watch("A")
    receipt = await nodes[1].broker.publish("A", b"{}", NOW_MS)
    await nodes[1].broker.forget("A")
    assert await nodes[1].broker.head("A") == receipt.position


async def test_subscribed_topic_without_messages_leaves_no_key(
    cluster: BrokerCluster, nodes: tuple[BrokerNode, BrokerNode], shared_redis: RedisServer
) -> None:
    one, other = nodes
    for channel in ("empty", "elsewhere", "published", "again"):
        await one.broker.watch(channel)
        await one.broker.head(channel)
    await other.broker.watch("elsewhere")
    await one.broker.publish("published", b"{}", NOW_MS)
    for channel in ("empty", "elsewhere", "published", "again"):
        await one.broker.unwatch(channel)
    await one.broker.watch("again")
    cluster.clock.advance(5.0)
    await one.broker.unwatch("unknown")
    await one.broker.publish("last", b"{}", NOW_MS)
    with shared_redis.client() as client:
        heads = {each.decode() for each in client.scan_iter(f"{cluster.prefix}:*:head")}
    assert heads == {
        f"{cluster.prefix}:{{{each}}}:head" for each in ("elsewhere", "published", "again", "last")
    }


async def test_malformed_messages_are_counted_and_not_delivered(
    cluster: BrokerCluster, shared_redis: RedisServer
) -> None:
    async with cluster.running() as node:
        await node.broker.watch("A")
        base = f"{cluster.prefix}:{{A}}"
        with shared_redis.client() as client:
            for text in (b"hello", b"", b'{"v":1}', b"\x80\x04N.", b"\xff" * 100):
                client.publish(base, text)
            client.publish(f"{cluster.prefix}:{{B}}", b"not for this node")
        await node.broker.publish("A", b"{}", NOW_MS, in_history=True)
        await node.wait_for_entries(1)
        assert node.counters.total("broker.strange") == 5
        forged = '{"v":1,"epoch":"%s","seq":99,"ts":1,"kind":"update","data":{}}'
        with shared_redis.client() as client:
            for epoch in (node.entries[0].position.epoch, "other"):
                client.publish(base, forged % epoch)
        await node.broker.publish("A", b"{}", NOW_MS, in_history=True)
        await node.wait_until(lambda: node.seqs() == [1, 2])
        assert node.resets == []


async def test_deleted_stream_loses_history_and_continues(
    cluster: BrokerCluster, shared_redis: RedisServer
) -> None:
    async with cluster.running() as node:
        for _ in range(3):
            receipt = await node.broker.publish("A", b"{}", NOW_MS, in_history=True)
        epoch = receipt.position.epoch
        with shared_redis.client() as client:
            client.delete(f"{cluster.prefix}:{{A}}:log")
        assert await node.broker.since("A", Position(epoch, 1)) is None
        newest = await node.broker.since("A", Position(epoch, 2))
        assert [each.position.seq for each in newest or ()] == [3]
        for _ in range(2):
            await node.broker.publish("A", b"{}", NOW_MS, in_history=True)
        assert await node.broker.since("A", Position(epoch, 2)) is None
        missed = await node.broker.since("A", Position(epoch, 3))
        assert [each.position.seq for each in missed or ()] == [4, 5]


async def test_unreadable_channel_does_not_block_other_channels() -> None:
    with redis_server() as redis:
        cluster = BrokerCluster("redis", redis.url)
        async with cluster.running() as node:
            for channel in "AB":
                await node.broker.publish(channel, b"{}", NOW_MS, in_history=True)
                await node.broker.watch(channel)
            head = f"{cluster.prefix}:{{A}}:head"
            with redis.client() as client:
                client.delete(head)
                client.set(head, "written by a foreign client")
                client.client_kill_filter(_type="pubsub")
            await node.wait_until(lambda: False in node.states and node.states[-1])
            await node.broker.publish("B", b"{}", NOW_MS, in_history=True)
            await node.wait_until(lambda: node.seqs("B") == [2])
            with redis.client() as client:
                client.config_resetstat()
                began = time.monotonic()
                await asyncio.sleep(0.3)
                calls = client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
                assert calls <= 2 + (time.monotonic() - began) / 0.25, "it is retried too often"
                client.delete(head)
            await node.wait_until(lambda: [each.channel for each in node.resets] == ["A"])
            await node.broker.publish("A", b"{}", NOW_MS, in_history=True)
            await node.wait_until(lambda: node.seqs() == [1])


async def test_book_with_missing_updates_restarts(
    cluster: BrokerCluster, shared_redis: RedisServer
) -> None:
    async with cluster.running() as node:
        for price in (b"1", b"2"):
            data = b'{"bids":[["%b","1"]],"asks":[],"checksum":1}' % price
            receipt = await node.broker.publish(
                "A",
                data,
                NOW_MS,
                full_state=lambda data=data: data,  # type: ignore[misc]
            )
        with shared_redis.client() as client:
            client.delete(f"{cluster.prefix}:{{A}}:log")
        assert await node.broker.latest("A") is None
        head = await node.broker.head("A")
        assert (head.seq, head.epoch == receipt.position.epoch) == (0, False)


async def test_malformed_book_does_not_block_other_channels(
    cluster: BrokerCluster, shared_redis: RedisServer
) -> None:
    async with cluster.running() as node:
        data = b'{"bids":[["1","1"]],"asks":[],"checksum":1}'
        for channel in "AB":
            for _ in range(2):
                await node.broker.publish(channel, data, NOW_MS, full_state=lambda: data)
            await node.broker.watch(channel)
        with shared_redis.client() as client:
            [head] = [
                each for each in client.keys(f"{cluster.prefix}:{{A}}*") if b":log" not in each
            ]
            whole = client.hget(head, "whole")
            assert isinstance(whole, bytes)
            client.hset(head, "whole", whole.replace(b'"bids"', b'"aids"'))
        with pytest.raises(FloorcastError, match="not an order book"):
            await node.broker.latest("A")
        for channel in "AB":
            node.broker._subscriber._on_subscribed(f"{cluster.prefix}:{{{channel}}}".encode())  # type: ignore[attr-defined]
        await node.broker.publish("B", data, NOW_MS, full_state=lambda: data)
        await node.wait_until(lambda: node.seqs("B") == [3])


async def test_evicted_head_invalidates_claims_and_stream(
    cluster: BrokerCluster, shared_redis: RedisServer
) -> None:
    async with cluster.running() as node:
        claim = Claim("id", b"digest")
        for _ in range(3):
            lost = await node.broker.publish("A", b"{}", NOW_MS, in_history=True)
        lost = await node.broker.publish("A", b"{}", NOW_MS, in_history=True, claim=claim)
        with shared_redis.client() as client:
            client.delete(f"{cluster.prefix}:{{A}}:head")
        again = await node.broker.publish("A", b"{}", NOW_MS, in_history=True)
        assert (again.position.seq, again.position.epoch == lost.position.epoch) == (1, False)
        retried = await node.broker.publish("A", b"{}", NOW_MS, in_history=True, claim=claim)
        assert retried.position == Position(again.position.epoch, 2), "the claimed entry is lost"
        entries = await node.broker.before("A", None, 10)
        assert [each.position for each in entries] == [again.position, retried.position]


async def test_log_of_a_book_is_bounded(cluster: BrokerCluster, shared_redis: RedisServer) -> None:
    async with cluster.running() as one, cluster.running() as other:
        for number in range(300):
            data = b'{"bids":[["%d","1"]],"asks":[],"checksum":1}' % (number % 3 + 1)
            node = (one, other)[number % 2]
            await node.broker.publish("A", data, NOW_MS, full_state=lambda data=data: data)  # type: ignore[misc]
            with shared_redis.client() as client:
                assert client.xlen(f"{cluster.prefix}:{{A}}:log") <= 65


async def test_all_redis_keys_expire(cluster: BrokerCluster, shared_redis: RedisServer) -> None:
    async with cluster.running(Bounds(seconds=10.0)) as node:
        await node.broker.publish("A", b"{}", NOW_MS, in_history=True)
        await node.broker.head("B")
        with shared_redis.client() as client:
            # All but the schema of the release.
            keys = list(client.scan_iter(f"{cluster.prefix}:{{*"))
            assert len(keys) == 3
            assert all(client.pttl(key) > 0 for key in keys)
            assert client.pttl(f"{cluster.prefix}:{{A}}:log") <= 70_000


async def test_too_large_entry_is_not_written(shared_redis: RedisServer) -> None:
    config = RedisConfig(Address.parse(shared_redis.url), prefix="small", max_entry_bytes=1000)
    node = BrokerNode(RedisBroker(ManualClock(), Counters(), config))
    await node.start()
    with pytest.raises(LimitError) as refused:
        await node.broker.publish("A", b'"%b"' % (b"x" * 1000), NOW_MS)
    assert refused.value.code == "limit.payload"
    await node.stop()


async def test_number_of_queued_commands_is_bounded() -> None:
    with redis_server() as redis:
        config = RedisConfig(Address.parse(redis.url), max_queued=10, timeout_seconds=1.0)
        node = BrokerNode(RedisBroker(ManualClock(), Counters(), config))
        await node.start()
        redis.pause()
        calls = [node.broker.publish("A", b"{}", NOW_MS) for _ in range(1000)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, FloorcastError) for each in results)
        overloaded = [each for each in results if "too many commands" in str(each)]
        assert 900 < len(overloaded) < 1000
        redis.resume()
        await node.stop()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("unix:///nowhere/redis.sock", "does not answer"),
        ("redis://127.0.0.1:1", "does not answer"),
        ("redis+sentinel://127.0.0.1:1/master", "does not answer"),
        ("redis+cluster://127.0.0.1:1", "does not answer"),
    ],
)
async def test_broker_does_not_start_without_redis(url: str, reason: str) -> None:
    node = BrokerNode(RedisBroker(ManualClock(), Counters(), RedisConfig(Address.parse(url))))
    with pytest.raises(BrokerError, match=reason):
        await node.start()
    with pytest.raises(FloorcastError):
        await node.broker.publish("A", b"{}", NOW_MS)


async def test_documented_rights_suffice_and_wrong_ones_are_reported() -> None:
    with redis_server() as redis:
        with redis.client() as client:
            grant(client, *server_rights())
            client.execute_command(
                "ACL SETUSER nobody on >p -@all +ping +hello +auth +client|setname"
            )  # type: ignore[no-untyped-call]
        clock = ManualClock()
        url = redis.url.replace("unix://", f"unix://{ACCOUNT}@")
        node = BrokerNode(RedisBroker(clock, Counters(), RedisConfig(Address.parse(url))))
        await node.start()
        await node.wait_until(lambda: bool(node.states))
        await node.broker.watch("A")
        book = b'{"bids":[["1","1"]],"asks":[],"checksum":1}'
        for number in range(1002):
            await node.broker.publish("A", b'{"n":%d}' % number, NOW_MS, in_history=True)
        await node.broker.publish("B", book, NOW_MS, full_state=lambda: book)
        await node.broker.publish("B", book, NOW_MS, full_state=lambda: book)
        assert await node.broker.latest("B") is not None
        assert len(await node.broker.before("A", None, 2000)) == 1000
        await node.broker.unwatch("A")
        await node.broker.forget("B")
        assert (await node.broker.head("B")).seq == 0
        await node.wait_for_entries(1002)
        await node.stop()
        for account, reason in (("nobody:p", "NoPermission"), ("nobody:x", "Authentication")):
            url = redis.url.replace("unix://", f"unix://{account}@")
            stranger = BrokerNode(RedisBroker(clock, Counters(), RedisConfig(Address.parse(url))))
            with pytest.raises(BrokerError, match=f"rejects .*{reason}Error") as refused:
                await stranger.start()
            assert "nobody" not in str(refused.value)


async def test_message_that_no_replica_has_is_not_acknowledged(
    cluster: BrokerCluster,
) -> None:
    async with cluster.running(timeout_seconds=2.0, acknowledging_replicas=1) as node:
        for _ in range(2):
            with pytest.raises(FloorcastError, match="too few replicas") as refused:
                await node.broker.publish("A", b"{}", NOW_MS, claim=Claim("id", b"digest"))
            assert refused.value.code == "server.overloaded"
            assert refused.value.retry_after_ms is not None
        assert (await node.broker.head("A")).seq == 1, "reading needs no replica"
