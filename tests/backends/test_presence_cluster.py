"""Presence over several nodes and a real Redis: dead nodes, lost connections, lost data."""

import asyncio
import contextlib

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import RedisPresence
from server.brokers.redis.connection.keys import Keys
from server.core.errors import FloorcastError
from server.core.sessions.records import session_channel
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.rigs.presence_cluster import ROOM, PresenceCluster, PresenceNode


@pytest.fixture
def cluster(shared_redis: RedisServer) -> PresenceCluster:
    return PresenceCluster(shared_redis.url)


async def test_events_since_a_revision_are_complete_or_unknown(cluster: PresenceCluster) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await one.join("ann1")
        await two.join("bob1")
        await cluster.settle()
        [first, second] = [each for each in one.events if each.revision]
        for node in (one, two):
            events = node.presence.events_since
            assert await events(ROOM, second.revision) == []
            assert await events(ROOM, first.revision) == [second]
            assert await events(ROOM, first.revision - 1) == [first, second]
            assert await events(ROOM, first.revision - 2) is None, "an older event is not stored"
            assert await events(ROOM, second.revision + 1) is None, "Redis lost it"
            assert await events(ROOM, 1) is None
            assert await events(("acme", "none"), 1) is None
        for number in range(130):
            await one.join(f"u{number}1")
        assert await two.presence.events_since(ROOM, second.revision) is None, "some were dropped"
        newest = await two.presence.events_since(ROOM, second.revision + 100)
        assert newest is not None
        assert len(newest) == 30


async def test_users_of_a_dead_node_leave_once_after_its_lease(
    cluster: PresenceCluster,
) -> None:
    async with cluster.node() as one, cluster.node() as two, cluster.node() as three:
        await one.join("ann1", "cid1")
        await two.join("bob1", "cid2")
        await three.join("bob2")
        three.disconnect("bob2")
        await cluster.settle()
        cluster.nodes.remove(two)
        await two.die()
        await cluster.pass_time(6.0)
        assert await one.participants() == {"ann": 1, "cid": 2, "bob": 1}, (
            "the node may only be slow"
        )
        await cluster.pass_time(8.0)
        assert one.event_summaries()[3:] == three.event_summaries()[3:] == [("left", "bob", 2)]
        assert await one.participants() == {"ann": 1, "cid": 1}
        await cluster.pass_time(20.0)
        assert len(one.event_summaries()) == 4, "the event is emitted once"
        cluster.nodes.append(two)


async def test_user_of_a_dead_node_stays_through_another_node(
    cluster: PresenceCluster,
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await one.join("ann1")
        await two.join("bob1")
        await cluster.settle()
        cluster.nodes.remove(two)
        await two.die()
        await cluster.pass_time(5.0)
        await one.join("bob2")
        await cluster.pass_time(30.0)
        assert one.event_summaries()[2:] == []
        assert await one.participants() == {"ann": 1, "bob": 1}
        cluster.nodes.append(two)


async def test_node_takes_over_grace_periods_of_a_dead_node(
    cluster: PresenceCluster,
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await two.join("ann1")
        two.disconnect("ann1")
        await two.wait_idle()
        cluster.nodes.remove(two)
        await two.die()
        await cluster.pass_time(12.0)
        assert one.event_summaries() == [("joined", "ann", 1), ("left", "ann", 0)]
        await cluster.pass_time(70.0)
        assert await one.presence.participants(ROOM) is None
        cluster.nodes.append(two)


async def test_sessions_of_a_stopped_node_are_taken_over_at_once(
    cluster: PresenceCluster,
) -> None:
    async with cluster.node() as one:
        async with cluster.node() as two:
            await one.join("ann1")
            await two.join("bob1")
            await cluster.settle()
        await cluster.pass_time(5.0)
        assert one.event_summaries()[2:] == [("left", "bob", 1)]


async def test_node_declared_dead_restores_its_connections(
    cluster: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await one.join("ann1")
        await two.join("bob1")
        await cluster.settle()
        cluster.nodes.remove(two)
        await cluster.pass_time(15.0)
        assert one.event_summaries()[2:] == [("left", "bob", 1)]
        cluster.nodes.append(two)
        await cluster.pass_time(3.0)
        assert one.event_summaries()[2:] == [("left", "bob", 1), ("joined", "bob", 2)]
        await cluster.pass_time(30.0)
        assert one.event_summaries()[4:] == []
        await two.presence.leave("bob1", ROOM)
        assert await one.participants() == {"ann": 1}
        await cluster.settle()
        with shared_redis.client() as client:
            nodes = client.hgetall(f"{cluster.prefix}:nodes")
            sessions = list(client.scan_iter(f"{cluster.prefix}:node:*:sessions"))
        assert sorted(sign[:1] == b"-" for sign in nodes.values()) == [False, False, True]
        assert len(sessions) == 1, "no sessions stay registered for the dead node"


async def test_rejected_rejoin_emits_refused(cluster: PresenceCluster) -> None:
    async with cluster.node(max_participants=2) as one, cluster.node(max_participants=2) as two:
        await one.join("ann1", "bob1")
        await two.wait_until(lambda: len(two.event_summaries()) == 2)
        two.presence.rejoin("cid1", "cid", ROOM)
        await cluster.settle()
        assert two.event_summaries()[2:] == [("refused", "cid", 0)]
        assert [each.connection_id for each in two.events if each.kind == "refused"] == ["cid1"]
        assert await one.participants() == {"ann": 1, "bob": 1}
        await one.presence.close(ROOM)
        await two.wait_until(lambda: len(two.event_summaries()) == 4)
        two.presence.rejoin("dora1", "dora", ROOM)
        await cluster.settle()
        assert two.event_summaries()[3:] == [("closed", "", 0), ("refused", "dora", 0)]


async def test_node_that_missed_events_learns_of_kick_and_close(
    cluster: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await one.join("ann1")
        await two.join("bob1", "cid1")
        await two.watch(("acme", "other"))
        await two.join("cid1", key=("acme", "other"))
        await cluster.settle()
        listeners = two.redis_broker._subscriber._listeners
        two.redis_broker._subscriber._listeners = []
        await one.presence.kick(ROOM, "bob")
        await one.presence.close(("acme", "other"))
        assert two.event_summaries()[4:] == []
        two.redis_broker._subscriber._listeners = listeners
        with shared_redis.client() as client:
            client.client_kill_filter(_type="pubsub")
        await two.wait_until(lambda: len(two.event_summaries()) >= 6)
        assert sorted(two.event_summaries()[4:]) == [("closed", "", 0), ("kicked", "bob", 2)]
        assert {each.key for each in two.events[-2:]} == {ROOM, ("acme", "other")}


@pytest.mark.parametrize("first", ["reconnect", "event"])
async def test_node_that_missed_joins_and_leaves_emits_them_in_order(
    cluster: PresenceCluster, shared_redis: RedisServer, first: str
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await one.join("ann1")
        await two.join("bob1")
        await cluster.settle()
        listeners = two.redis_broker._subscriber._listeners
        two.redis_broker._subscriber._listeners = []
        await one.join("cid1", "dora1")
        await one.presence.leave("cid1", ROOM)
        await one.wait_until(lambda: len(one.event_summaries()) == 5)
        two.redis_broker._subscriber._listeners = listeners
        if first == "event":
            await one.join("eve1")
        else:
            with shared_redis.client() as client:
                client.client_kill_filter(_type="pubsub")
            await two.wait_until(lambda: len(two.event_summaries()) >= 5)
            await one.join("eve1")
        await two.wait_until(lambda: len(two.event_summaries()) >= 6)
        await cluster.settle()
        assert two.event_summaries() == one.event_summaries()


async def test_malformed_events_are_counted_and_ignored(
    cluster: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with cluster.node() as node:
        await node.join("ann1")
        base = Keys(cluster.prefix).base(session_channel(*ROOM))
        template = b'{"v":1,"said":"%b","revision":%b,"user":%b,"count":%b,"ts":1}'
        malformed = [
            *(b"", b"{}", b"[]", b"null", b"\xff\x00", b'{"v":1,"said":"left"}', b"x" * 5_000_000),
            template % (b"refused", b"9", b'"ann"', b"1"),
            template % (b"gone", b"9", b'"ann"', b"1"),
            template % (b"left", b'"9"', b'"ann"', b"1"),
            template % (b"left", b"9", b"null", b"1"),
            template % (b"left", b"9", b'"ann"', b'"1"'),
        ]
        with shared_redis.client() as client:
            for each in malformed:
                client.publish(base, each)
        await cluster.settle()
        assert node.event_summaries() == [("joined", "ann", 1)]
        assert node.counters.total("broker.strange") == len(malformed)


# --- Redis is down, or has lost its data


async def test_cancelled_join_keeps_the_grace_period(
    cluster: PresenceCluster,
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await one.join("ann1", "bob1")
        await two.join("ann2")
        one.disconnect("bob1")
        await cluster.pass_time(5.0)
        joining = asyncio.create_task(two.presence.join("bob2", "bob", ROOM))
        # The join is sent, but not answered yet.
        await asyncio.sleep(0)
        joining.cancel()
        await asyncio.wait([joining])
        assert joining.cancelled()
        await cluster.pass_time(9.0)
        assert await one.participants() == {"ann": 2, "bob": 0}
        await cluster.pass_time(2.0)
        assert one.event_summaries() == [
            ("joined", "ann", 1),
            ("joined", "bob", 2),
            ("left", "bob", 1),
        ]


async def test_calls_fail_fast_and_users_stay_while_redis_is_down() -> None:
    with redis_server() as server:
        cluster = PresenceCluster(server.url)
        async with cluster.node(timeout_seconds=1.0) as one, cluster.node() as two:
            await one.join("ann1", "cid1")
            await two.join("bob1")
            await cluster.settle()
            server.pause()
            for call in (
                one.presence.join("dora1", "dora", ROOM),
                one.presence.leave("ann1", ROOM),
                one.presence.kick(ROOM, "bob"),
            ):
                with pytest.raises(FloorcastError) as refused:
                    await call
                assert refused.value.code is ErrorCode.SERVER_OVERLOADED
                assert refused.value.retry_after_ms
            one.disconnect("cid1")
            cluster.clock.advance(20.0)
            server.resume()
            assert isinstance(one.presence, RedisPresence)
            pipeline = one.presence.session.pipeline
            await one.wait_until(lambda: pipeline.is_up)
            await cluster.pass_time(9.0)
            # Earlier calls may have taken effect; the last one wins.
            assert await two.participants() == {"ann": 1, "cid": 0, "bob": 1}
            await cluster.pass_time(3.0)
            assert ("left", "cid", 2) in two.event_summaries()
            assert await two.participants() == {"ann": 1, "bob": 1}


async def test_flushed_redis_is_restored_without_events() -> None:
    with redis_server() as server:
        cluster = PresenceCluster(server.url)
        async with cluster.node() as one, cluster.node() as two:
            await one.presence.join("ann1", "ann", ROOM, {"title": "mine"})
            await two.join("bob1", "cid1", "dora1")
            two.disconnect("cid1")
            await cluster.settle()
            before = len(one.event_summaries())
            with server.client() as client:
                client.flushall()
            two.disconnect("dora1")
            await cluster.pass_time(5.0)
            assert one.event_summaries()[before:] == []
            participants = await one.presence.participants(ROOM)
            assert participants is not None
            assert participants.metadata == {"title": "mine"}
            assert await one.participants() == {"ann": 1, "bob": 1, "cid": 0, "dora": 0}
            assert one.presence.session_count == 1
            await cluster.pass_time(12.0)
            left = {user for what, user, _ in one.event_summaries()[before:] if what == "left"}
            assert left == {"cid", "dora"}
            assert await two.participants() == {"ann": 1, "bob": 1}
            await cluster.pass_time(20.0)
            assert len(one.event_summaries()) == before + 2
            assert await one.presence.kick(ROOM, "bob") == 1


@pytest.mark.parametrize("newcomer", [0, 1, 2])
async def test_newcomer_to_a_flushed_session_removes_nobody(newcomer: int) -> None:
    with redis_server() as server:
        cluster = PresenceCluster(server.url)
        async with cluster.node() as one, cluster.node() as two, cluster.node() as three:
            await one.presence.join("ann1", "ann", ROOM, {"title": "mine"})
            await two.join("bob1")
            await cluster.settle()
            before = len(one.event_summaries())
            with server.client() as client:
                client.flushall()
            await (one, two, three)[newcomer].join("cid1")
            await cluster.pass_time(5.0)
            for node in (one, two, three):
                assert [what for what, *_ in node.event_summaries()[before:]] == ["joined"]
                assert await node.participants() == {"ann": 1, "bob": 1, "cid": 1}
            assert await one.presence.kick(ROOM, "ann") == 1


@pytest.mark.parametrize("part", ["room", "users", "seats"])
@pytest.mark.parametrize("newcomer", [0, 1])
async def test_evicted_part_of_a_session_is_restored_when_a_user_joins(
    cluster: PresenceCluster, shared_redis: RedisServer, part: str, newcomer: int
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await one.join("ann1")
        await two.join("bob1", "bob2")
        await cluster.settle()
        before = len(one.event_summaries())
        with shared_redis.client() as client:
            key = Keys(cluster.prefix).base(session_channel(*ROOM)) + b":" + part.encode()
            assert client.delete(key) == 1
        await (one, two)[newcomer].join("cid1")
        await cluster.pass_time(5.0)
        # Every node asserts its members again after an interruption.
        for node in (one, two):
            assert isinstance(node.presence, RedisPresence)
            node.presence._on_up()
        await cluster.pass_time(5.0)
        for node in (one, two):
            assert [what for what, *_ in node.event_summaries()[before:]] == ["joined"]
            assert await node.participants() == {"ann": 1, "bob": 2, "cid": 1}


async def test_garbage_in_the_hashes_of_a_session_is_skipped_and_counted(
    cluster: PresenceCluster, shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        await one.join("ann1")
        await two.join("bob1")
        await cluster.settle()
        base = Keys(cluster.prefix).base(session_channel(*ROOM))
        with shared_redis.client() as client:
            client.hset(base + b":users", mapping={"eve": "", "fay": "1 x 2", b"\xff": "1 2 3"})
            client.hset(base + b":seats", mapping={"c1": "", "c2": "nobody", b"\xff": b"\xff"})
            client.hset(base + b":room", mapping={"facts": "{", "until": "x"})
            client.sadd(Keys(cluster.prefix).node_sessions(one.presence.session.node), b"\xff")  # type: ignore[attr-defined]
        await one.join("cid1", "eve1")
        for node in (one, two):
            assert isinstance(node.presence, RedisPresence)
            node.presence._on_up()
        await cluster.pass_time(15.0)
        assert await two.participants() == {"ann": 1, "bob": 1, "cid": 1, "eve": 1}
        assert await two.presence.kick(ROOM, "ann") == 1
        await two.presence.leave("bob1", ROOM)
        assert await one.participants() == {"cid": 1, "eve": 1}
        assert one.counters.total("broker.strange") > 0
        assert [each.message for each in caplog.records] == []
        assert one.counters.total("tasks.failed") == two.counters.total("tasks.failed") == 0


async def test_nodes_that_are_gone_are_forgotten(
    cluster: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with cluster.node() as one:
        async with cluster.node():
            pass
        async with cluster.node() as crashed:
            await crashed.die()
        with shared_redis.client() as client:
            nodes = Keys(cluster.prefix).nodes()
            assert client.hlen(nodes) == 3
            await cluster.pass_time(12.0)
            cluster.clock.advance(16 * 60)
            await cluster.pass_time(4.0)
            assert client.hlen(nodes) == 2, "a crashed node may only be suspended"
            cluster.clock.advance(3600)
            await cluster.pass_time(4.0)
            assert client.hlen(nodes) == 1
        assert one.counters.total("tasks.failed") == 0


async def wait_until_empty(
    cluster: PresenceCluster, node: PresenceNode, shared_redis: RedisServer
) -> None:
    """Assert that the node holds no state, and Redis only its heartbeat and its schema."""
    assert isinstance(node.presence, RedisPresence)
    sessions = node.presence._updates
    assert (len(sessions), sessions.queued, sessions._lost, sessions.unregistered) == (
        0,
        {},
        {},
        {},
    )
    with shared_redis.client() as client:
        keys = {each.decode() for each in client.scan_iter(f"{cluster.prefix}:*")}
    assert keys == {f"{cluster.prefix}:nodes", f"{cluster.prefix}:schema"}


async def test_expired_sessions_leave_nothing_behind(
    cluster: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with cluster.node() as one, cluster.node() as two:
        for number, node in enumerate((one, two)):
            await node.watch(("acme", "other"))
            await node.join(*(f"u{each}{number}" for each in range(number, 9)))
            await node.join(f"ann{number}", key=("acme", "other"))
        assert await one.presence.kick(ROOM, "u3") == 2
        for each in range(9):
            one.disconnect(f"u{each}0")
            two.presence.remove(f"u{each}1", ROOM, lost=False)
        one.presence.remove("ann0", ("acme", "other"), lost=False)
        await two.presence.close(("acme", "other"))
        await cluster.settle()
        for node in (one, two):
            for key in (ROOM, ("acme", "other")):
                await node.redis_broker.unwatch(session_channel(*key))
        for _ in range(90):
            cluster.clock.advance(1.0)
            await one.wait_idle()
            await two.wait_idle()
        for node in (one, two):
            await wait_until_empty(cluster, node, shared_redis)


async def test_redis_restored_from_a_snapshot_is_reconciled() -> None:
    with redis_server() as server:
        cluster = PresenceCluster(server.url)
        async with cluster.node() as one, cluster.node() as two:
            await one.join("ann1", "eve1")
            await two.join("bob1")
            with server.client() as client:
                client.save()
            await two.join("cid1", "dan1")
            await one.presence.leave("eve1", ROOM)
            await two.presence.leave("dan1", ROOM)
            await two.presence.leave("bob1", ROOM)
            await cluster.settle()
            before = [len(node.event_summaries()) for node in (one, two)]
            server.kill()
            server.start()
            for node in (one, two):
                await node.wait_until(lambda node=node: node.counters.total("broker.lost") > 0)  # type: ignore[misc]
                await wait_until_answering(node)
            await cluster.pass_time(5.0)
            assert await one.participants() == await two.participants() == {"ann": 1, "cid": 1}
            for node, count in zip((one, two), before, strict=True):
                assert not {"joined", "kicked"} & {
                    what for what, *_ in node.event_summaries()[count:]
                }
            before = [len(node.event_summaries()) for node in (one, two)]
            revisions = [each.revision for each in two.events if each.revision]
            await one.join("fay1")
            await cluster.settle()
            assert (
                one.event_summaries()[before[0] :]
                == two.event_summaries()[before[1] :]
                == [("joined", "fay", 3)]
            )
            [joined] = [each for each in two.events if each.user_id == "fay"]
            assert joined.revision > max(revisions), "the revision is new to all nodes"


async def wait_until_answering(node: PresenceNode) -> None:
    """Wait until the node reaches Redis again."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            with contextlib.suppress(FloorcastError):
                await node.participants()
                return
            await asyncio.sleep(0.01)
