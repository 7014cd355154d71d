"""The notice store over Redis: pending until acknowledged, over all nodes and releases."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import orjson
import pytest

from server.brokers import Address, RedisBroker, RedisConfig, RedisNoticeStore
from server.core.counters import Counters
from server.core.errors import FloorcastError
from server.core.limits.shares import Quota
from server.core.sessions.notices import Notice, NoticeLimits
from server.ports import ignore
from tests.kit.clock import START, ManualClock
from tests.kit.patience import until, until_awaited
from tests.kit.redis.servers import redis_server

KEEP_SECONDS = 60.0
LIMITS = NoticeLimits(KEEP_SECONDS, 5, Quota(1000), Quota(1000))
_prefixes = itertools.count(1)


def notice(identifier: str, user: str = "ann", org: str = "acme", data: bytes = b"{}") -> Notice:
    return Notice(org, user, identifier, "fill", int(START * 1000), data)


@dataclass(slots=True)
class Node:
    """A node's store, and the notices that it received."""

    broker: RedisBroker
    store: RedisNoticeStore
    delivered: list[str] = field(default_factory=list)

    async def post(self, *notices: Notice) -> list[int | None]:
        return [await self.store.post(each, critical=True) for each in notices]

    async def pending(self, user: str = "ann", org: str = "acme") -> list[str]:
        return [each.id for each in await self.store.pending(org, user)]

    async def until_pending(self, *identifiers: str) -> None:
        """Wait until another node's work is done."""

        async def is_reached() -> bool:
            self.store.sweep()
            return await self.pending() == list(identifiers)

        await until_awaited(is_reached)


class NoticeCluster:
    """Creates nodes on one Redis."""

    def __init__(self, url: str) -> None:
        self.clock = ManualClock()
        self.prefix = f"notices{next(_prefixes)}"
        self.url = url

    @contextlib.asynccontextmanager
    async def node(self, limits: NoticeLimits = LIMITS) -> AsyncIterator[Node]:
        config = RedisConfig(Address.parse(self.url), prefix=self.prefix, timeout_seconds=1.0)
        broker = RedisBroker(self.clock, Counters(), config)
        node = Node(broker, RedisNoticeStore(self.clock, config, broker, limits))

        def on_notice(each: Notice, critical: bool) -> int:
            node.delivered.append(each.id)
            return 1

        await broker.start(ignore)
        try:
            await node.store.start(on_notice)
            await until(lambda: "notices" in broker._subscriber)
            yield node
        finally:
            await node.store.stop()
            await broker.stop()


@pytest.fixture(params=["shared_redis", "shards_url"])
def cluster(request: pytest.FixtureRequest) -> NoticeCluster:
    found = request.getfixturevalue(request.param)
    return NoticeCluster(found if isinstance(found, str) else found.url)


async def test_notice_reaches_every_node_and_stays_until_acknowledged(
    cluster: NoticeCluster,
) -> None:
    async with cluster.node() as one, cluster.node() as other:
        assert await one.post(notice("1"), notice("2"), notice("3", "bob")) == [None] * 3
        await until(lambda: one.delivered == other.delivered == ["1", "2", "3"])
        assert await other.pending() == await one.pending() == ["1", "2"]
        other.store.acknowledge(notice("1"))
        assert await other.pending() == ["2"]
        await one.until_pending("2")
        assert await one.post(notice("1"), notice("2")) == [0, 0]
    async with cluster.node() as later:
        assert await later.pending() == ["2"]
        assert await later.pending("bob") == ["3"]
        assert later.delivered == []


async def test_users_with_similar_names_have_their_own_notices(cluster: NoticeCluster) -> None:
    users = [("acme", "ann"), ("acme", 'ann"'), ("acme", "an"), ("ac", 'me","ann'), ('a",', "ünn")]
    async with cluster.node() as node:
        for org, user in users:
            await node.post(notice(f"{org} {user}", user, org))
        for org, user in users:
            assert await node.pending(user, org) == [f"{org} {user}"]


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (NoticeLimits(60, 2, Quota(1000), Quota(1000)), {"ann": "34", "bob": "56", "eve": "7"}),
        (NoticeLimits(60, 9, Quota(1000), Quota(4)), {"ann": "34", "bob": "56", "eve": "7"}),
        (NoticeLimits(60, 9, Quota(5), Quota(1000)), {"ann": "34", "bob": "56", "eve": "7"}),
        (NoticeLimits(60, 9, Quota(), Quota(9, 5500)), {"ann": "34", "bob": "56", "eve": "7"}),
        (NoticeLimits(60, 9, Quota(99, 6500), Quota()), {"ann": "34", "bob": "56", "eve": "7"}),
    ],
    ids=["user", "org", "total", "bytes of org", "bytes"],
)
async def test_oldest_notice_of_the_user_or_of_the_largest_org_gives_way(
    cluster: NoticeCluster, limits: NoticeLimits, kept: dict[str, str]
) -> None:
    async with cluster.node(limits) as node:
        await node.post(notice("7", "eve", "evil"))
        await node.post(*(notice(each) for each in "1234"))
        await node.post(*(notice(each, "bob") for each in "56"))
        assert {
            "ann": "".join(await node.pending()),
            "bob": "".join(await node.pending("bob")),
            "eve": "".join(await node.pending("eve", "evil")),
        } == kept
        assert node.store.dropped_count == 2


async def test_expired_notice_is_gone_everywhere(cluster: NoticeCluster) -> None:
    async with cluster.node() as one, cluster.node() as other:
        await one.post(notice("1"), notice("2", "bob"))
        await until(lambda: one.delivered == other.delivered == ["1", "2"])
        cluster.clock.advance(KEEP_SECONDS / 2)
        await one.post(notice("3"))
        cluster.clock.advance(KEEP_SECONDS / 2 + 1)
        assert await other.pending() == ["3"]
        assert await other.pending("bob") == []
        await until_kept(other, 1, expired=["1", "2"])
        assert one.store.sweep() == []
        # Its id is free again.
        assert await one.post(notice("1")) == [None]
        assert await other.pending() == ["3", "1"]


async def until_kept(node: Node, count: int, *, expired: Sequence[str] | None = None) -> None:
    """Wait until Redis has so many notices, and the node has reported those that expired."""
    reported: list[str] = []

    async def is_reached() -> bool:
        reported.extend(each.id for each in node.store.sweep())
        # The hash also has the last number.
        kept = await node.broker.run((b"HLEN", node.store._base + b":waiting"))
        return kept == count + 1 and expired in (None, sorted(reported))

    await until_awaited(is_reached)


class PreviousRelease:
    """What processes of the release before write: the pending notices, without an index."""

    def __init__(self, node: Node) -> None:
        self._broker = node.broker
        self._base = node.store._base

    def encode(self, each: Notice, said: str) -> bytes:
        until_ms = int((START + KEEP_SECONDS) * 1000)
        fields = {"v": 1, "said": said, "org": each.org, "user": each.user_id, "id": each.id}
        fields |= {"event": each.event, "ts": each.ts_ms, "until": until_ms, "data": {}}
        return orjson.dumps(fields)

    async def post(self, each: Notice, *, publish: bool = True) -> None:
        key, message = (
            orjson.dumps([each.org, each.user_id, each.id]),
            self.encode(each, "critical"),
        )
        number = await self._broker.run((b"HINCRBY", self._base + b":waiting", b"#", 1))
        assert isinstance(number, int)
        await self._broker.run(
            (b"HSET", self._base + b":waiting", key, b"%d %b" % (number, message))
        )
        if publish:
            await self._broker.run((b"PUBLISH", self._base, message))

    async def acknowledge(self, each: Notice, *, publish: bool = True) -> None:
        key = orjson.dumps([each.org, each.user_id, each.id])
        await self._broker.run((b"HDEL", self._base + b":waiting", key))
        if publish:
            await self._broker.run((b"PUBLISH", self._base, self.encode(each, "seen")))


async def test_notice_of_the_release_before_is_pending_and_acknowledged(
    cluster: NoticeCluster,
) -> None:
    async with cluster.node() as node:
        previous = PreviousRelease(node)
        await node.post(notice("1"))
        await previous.post(notice("2"))
        await until(lambda: node.delivered == ["1", "2"])
        await node.until_pending("1", "2")
        assert await node.post(notice("2")) == [0]
        await previous.acknowledge(notice("1"))
        await node.until_pending("2")
        node.store.acknowledge(notice("2"))
        await node.until_pending()
        await until_awaited(lambda: is_index_empty(node))


async def test_index_is_repaired_after_changes_that_no_node_received(
    cluster: NoticeCluster,
) -> None:
    async with cluster.node() as node:
        previous = PreviousRelease(node)
        await node.post(*(notice(each) for each in "12"))
        # As many as before: only a search finds them.
        await previous.post(notice("3"), publish=False)
        await previous.acknowledge(notice("1"), publish=False)
        for number in range(600):
            await previous.post(notice(str(number), f"user{number}"), publish=False)
    async with cluster.node() as node:
        await node.until_pending("2", "3")
        await until_awaited(lambda: has_pending(node, "user599", "599"))
        cluster.clock.advance(KEEP_SECONDS + 1)
        await until_kept(node, 0)
        await until_awaited(lambda: is_index_empty(node))


async def has_pending(node: Node, user: str, identifier: str) -> bool:
    return await node.pending(user) == [identifier]


async def test_processes_of_the_release_before_can_read_what_is_posted(
    cluster: NoticeCluster,
) -> None:
    async with cluster.node() as node:
        await node.post(notice("1"))
        key = orjson.dumps(["acme", "ann", "1"])
        value = await node.broker.run((b"HGET", node.store._base + b":waiting", key))
        assert isinstance(value, bytes)
        number, _, message = value.partition(b" ")
        assert number == b"1"
        expected = {"v": 1, "said": "critical", "org": "acme", "user": "ann", "id": "1"}
        assert expected.items() <= orjson.loads(message).items()


async def is_index_empty(node: Node) -> bool:
    base, run = node.store._base, node.broker.run
    return (
        await run((b"ZRANGE", base + b":names", 0, -1)) == []
        and await run((b"HGET", base + b":totals", b"count")) == b"0"
        and await run((b"HGET", base + b":totals", b"bytes")) == b"0"
    )


async def test_reader_does_not_wait_for_a_redis_that_hangs() -> None:
    with redis_server() as redis:
        cluster = NoticeCluster(redis.url)
        async with cluster.node() as node:
            await node.post(notice("1"))
            redis.pause()
            with pytest.raises(FloorcastError):
                await node.pending()
            redis.resume()


async def test_acknowledgement_during_an_outage_is_kept() -> None:
    with redis_server(is_persistent=True) as redis:
        cluster = NoticeCluster(redis.url)
        async with cluster.node() as node:
            await node.post(notice("1"), notice("2"))
            redis.kill()
            node.store.acknowledge(notice("1"))
            redis.start()
            with contextlib.suppress(FloorcastError):
                await node.until_pending("2")
            await until(lambda: node.broker._subscriber.is_up)
            await node.until_pending("2")
            async with cluster.node() as other:
                await other.until_pending("2")
