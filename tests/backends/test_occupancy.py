"""Occupancy, wills and the queue of hooks, with each backend."""

import pytest

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError
from server.core.limits.shares import Quota, ShareLimits
from server.core.occupancy.subjects import Subject, SubjectKind, user_subject
from server.core.occupancy.wills import RETRY_SECONDS, WILL_BYTES, Will
from tests.backends.conftest import url_of
from tests.kit.redis.servers import RedisServer
from tests.kit.rigs.occupancy_cluster import GRACE_SECONDS, OccupancyCluster

ANN, BOB = user_subject("acme", "ann"), user_subject("acme", "bob")
ROOM = Subject(SubjectKind.SESSION, "acme", "room:1")
PRICE = Subject(SubjectKind.TOPIC, "", "PRICE:A")
DATA = Subject(SubjectKind.TOPIC, "acme", "USER_DATA", "ann:ü 1")
LONG = GRACE_SECONDS + 0.45


# Redis measures real time: what a script does is the same on a single server and behind a Sentinel.
@pytest.fixture(name="cluster", params=["memory", "file", "redis", "shards"])
def create_cluster(request: pytest.FixtureRequest) -> OccupancyCluster:
    return OccupancyCluster(url_of(request))


@pytest.fixture(name="kept", params=["file", "redis"])
def create_kept_cluster(request: pytest.FixtureRequest) -> OccupancyCluster:
    return OccupancyCluster(url_of(request))


@pytest.fixture(name="shared", params=["redis"])
def create_shared_cluster(request: pytest.FixtureRequest) -> OccupancyCluster:
    return OccupancyCluster(url_of(request))


def will(user: str = "ann", *, after_ms: int = 400, name: str = "w") -> Will:
    return Will("acme", user, name, after_ms, b'[{"topic":"PRICE:A"}]')


@pytest.mark.parametrize("subject", [ANN, ROOM, PRICE, DATA])
def test_subject_is_read_back_from_its_key(subject: Subject) -> None:
    assert Subject.parse(subject.key) == subject


async def test_use_is_emitted_once_and_its_end_after_the_grace_time(
    cluster: OccupancyCluster,
) -> None:
    async with cluster.node() as node:
        for subject in (ANN, ROOM, PRICE, DATA):
            node.occupancy.enter(subject)
        node.occupancy.leave(ANN)
        node.occupancy.leave(DATA)
        await cluster.pass_time(GRACE_SECONDS / 3)
        node.occupancy.enter(ANN)
        await cluster.pass_time(LONG)
        assert node.changes == [
            "user.online ann",
            "session.occupied room:1",
            "topic.occupied PRICE:A",
            "topic.occupied USER_DATA",
            "topic.vacated USER_DATA",
        ]
        node.occupancy.leave(ANN)
        await cluster.pass_time(LONG)
        assert node.changes[5:] == ["user.offline ann"]
        events = await node.events()
        assert [each["type"] for each in events] == [
            each.partition(" ")[0] for each in node.changes
        ]
        assert events[0] | {"id": 0, "ts": 0} == {
            "id": 0,
            "ts": 0,
            "type": "user.online",
            "node": node.occupancy.node,
            "org": "acme",
            "user_id": "ann",
        }
        assert (events[2]["org"], events[2]["topic"]) == (None, "PRICE:A")
        assert (events[3]["org"], events[3]["user_id"]) == ("acme", "ann:ü 1")
        assert len({each["id"] for each in events}) == len(events)


async def test_subject_is_in_use_while_any_node_uses_it(shared: OccupancyCluster) -> None:
    async with shared.node() as one, shared.node() as other:
        one.occupancy.enter(ANN)
        await one.flush()
        other.occupancy.enter(ANN)
        await other.flush()
        one.occupancy.leave(ANN)
        await shared.pass_time(LONG)
        assert [*one.changes, *other.changes] == ["user.online ann"]
        other.occupancy.leave(ANN)
        await shared.pass_time(LONG)
        assert sorted([*one.changes, *other.changes]) == ["user.offline ann", "user.online ann"]


async def test_killed_node_is_noticed_once_by_the_others(shared: OccupancyCluster) -> None:
    async with shared.node() as dead, shared.node() as one, shared.node() as other:
        for number in range(700):
            dead.occupancy.enter(user_subject("acme", f"user{number}"))
        one.occupancy.enter(ANN)
        dead.occupancy.enter(ANN)
        await dead.flush()
        await dead.kill()
        await shared.pass_time(4)
        offline = [each for each in (*one.changes, *other.changes) if "offline" in each]
        assert sorted(offline) == sorted(f"user.offline user{each}" for each in range(700))
        assert len(await one.events() or await other.events()) == 1000


async def test_node_that_was_taken_for_dead_enters_again(shared: OccupancyCluster) -> None:
    async with shared.node() as slow, shared.node() as other:
        slow.occupancy.enter(ANN)
        await slow.occupancy.put_will(will(after_ms=60_000))
        await slow.kill()
        await shared.pass_time(1.7)
        await slow.occupancy.start(lambda change: slow.changes.append("?"), slow.wills.append)
        await shared.pass_time(2.5)
        assert (slow.changes, other.changes) == (["user.online ann"], [])
        slow.occupancy.leave(ANN)
        await shared.pass_time(LONG)
        assert other.changes == ["user.offline ann"] or slow.changes[1:] == ["?"]
        assert [*slow.wills, *other.wills] == []


async def test_stopped_node_leaves_at_once(shared: OccupancyCluster) -> None:
    async with shared.node() as other:
        async with shared.node() as node:
            node.occupancy.enter(ANN)
            await node.flush()
            node.occupancy.leave(ANN)
        await shared.pass_time(LONG)
        assert other.changes == ["user.offline ann"]


async def test_will_is_due_once_its_user_was_gone_for_so_long(cluster: OccupancyCluster) -> None:
    async with cluster.node() as node:
        node.occupancy.enter(ANN)
        await node.occupancy.put_will(will(name="first"))
        await node.occupancy.put_will(will(name="second"))
        await cluster.pass_time(0.5)
        assert node.wills == []
        node.occupancy.leave(ANN)
        await cluster.pass_time(0.2)
        assert node.wills == []
        await cluster.pass_time(0.6)
        assert node.wills == [will(name="second")]
        await node.occupancy.settle_will(will(name="first"))
        # Not settled: due again.
        await cluster.pass_time(RETRY_SECONDS + 0.3)
        assert node.wills == [will(name="second")] * 2


async def test_settled_will_is_not_due_again(cluster: OccupancyCluster) -> None:
    async with cluster.node() as node:
        await node.occupancy.put_will(will(after_ms=0))
        await cluster.pass_time(0.3)
        await node.occupancy.settle_will(node.wills[0])
        await cluster.pass_time(RETRY_SECONDS + 0.3)
        assert node.wills == [will(after_ms=0)]


async def test_will_is_taken_back(cluster: OccupancyCluster) -> None:
    async with cluster.node() as node:
        for user in (ANN, BOB):
            node.occupancy.enter(user)
            await node.occupancy.put_will(will(user.name))
        await node.occupancy.remove_will(("acme", "bob"))
        node.occupancy.leave(ANN)
        node.occupancy.leave(BOB)
        await cluster.pass_time(0.1)
        node.occupancy.enter(ANN)
        node.occupancy.leave(ANN)
        await cluster.pass_time(1.0)
        assert node.wills == []


async def test_resumed_connection_keeps_the_will(cluster: OccupancyCluster) -> None:
    async with cluster.node() as node:
        node.occupancy.enter(ANN)
        await node.occupancy.put_will(will())
        node.occupancy.leave(ANN)
        await cluster.pass_time(0.1)
        node.occupancy.enter(ANN, resumed=True)
        await cluster.pass_time(0.8)
        assert node.wills == []
        node.occupancy.leave(ANN)
        await cluster.pass_time(0.8)
        assert node.wills == [will()]


async def test_will_of_a_killed_node_is_due_on_time_on_one_other(shared: OccupancyCluster) -> None:
    async with shared.node() as dead, shared.node() as one, shared.node() as other:
        dead.occupancy.enter(ANN)
        dead.occupancy.enter(BOB)
        one.occupancy.enter(BOB)
        await dead.occupancy.put_will(will(after_ms=2000))
        await dead.occupancy.put_will(will("bob"))
        await dead.kill()
        await shared.pass_time(1.6)
        assert [*one.wills, *other.wills] == []
        await shared.pass_time(1.4)
        assert [*one.wills, *other.wills] == [will(after_ms=2000)]


async def test_user_who_came_back_before_the_death_was_noticed_has_no_will(
    shared: OccupancyCluster,
) -> None:
    async with shared.node() as dead, shared.node() as one, shared.node() as other:
        for user in (ANN, BOB):
            dead.occupancy.enter(user)
            await dead.occupancy.put_will(will(user.name))
        # This one is never gone.
        other.occupancy.enter(BOB)
        await other.flush()
        await dead.kill()
        await shared.pass_time(0.6)
        one.occupancy.enter(ANN)
        one.occupancy.enter(BOB)
        await shared.pass_time(1.4)
        for user in (ANN, BOB):
            one.occupancy.leave(user)
        other.occupancy.leave(BOB)
        await shared.pass_time(1.0)
        assert [*one.wills, *other.wills] == [will("bob")]


async def test_wills_have_a_share_of_each_org(cluster: OccupancyCluster) -> None:
    size = WILL_BYTES + 500
    limits = ShareLimits(Quota(4, 2**40), Quota(2, 2 * size), Quota())
    async with cluster.node(wills=limits) as node:
        await node.occupancy.put_will(will("ann"))
        await node.occupancy.put_will(will("ann"))
        await node.occupancy.put_will(will("bob"))
        with pytest.raises(LimitError, match="2 wills") as refused:
            await node.occupancy.put_will(will("eve"))
        assert refused.value.code == ErrorCode.LIMIT_SHARE
        large = Will("acme", "bob", "x", 1, b"[" + b"1" * 1000 + b"]")
        with pytest.raises(LimitError, match="bytes of wills"):
            await node.occupancy.put_will(large)
        for user in ("ann", "bob"):
            await node.occupancy.put_will(Will("other", user, "x", 1, b"[]"))
        with pytest.raises(LimitError, match="the server"):
            await node.occupancy.put_will(Will("third", "ann", "x", 1, b"[]"))
        await node.occupancy.remove_will(("acme", "ann"))
        await node.occupancy.put_will(will("eve"))


async def test_events_stay_in_order_until_they_are_confirmed(cluster: OccupancyCluster) -> None:
    async with cluster.node() as node:
        for number in range(250):
            node.append(f"user{number}")
        await node.flush()
        first = await node.queue.take(100)
        assert [each.body["user_id"] for each in first] == [f"user{n}" for n in range(100)]
        assert await node.queue.take(100) == first
        await node.queue.confirm(first[49])
        assert (await node.queue.take(1))[0].body["user_id"] == "user50"
        rest = await node.queue.take(1000)
        await node.queue.confirm(rest[-1])
        assert not await node.queue.take(1)


async def test_full_queue_drops_the_oldest_and_counts_them(cluster: OccupancyCluster) -> None:
    async with cluster.node(max_events=20) as node:
        for number in range(30):
            node.append(f"user{number}")
            await node.flush()
        kept = [each["user_id"] for each in await node.events()]
        assert kept == [f"user{number}" for number in range(10, 30)]
        assert node.counters.total("hooks.dropped") == 10


async def test_event_that_many_nodes_notice_is_queued_once(cluster: OccupancyCluster) -> None:
    async with cluster.node() as node:
        node.append("ann", once="notice 1")
        node.append("ann", once="notice 1")
        node.append("ann", once="notice 2")
        assert len(await node.events()) == 2


async def test_one_node_sends_and_another_takes_over(shared: OccupancyCluster) -> None:
    async with shared.node() as one, shared.node() as other:
        for number in range(3):
            one.append(f"user{number}")
        await one.flush()
        taken = await one.queue.take(2)
        assert len(taken) == 2
        assert not await other.queue.take(2)
        await one.queue.confirm(taken[-1])
        [last] = await one.queue.take(2)
        await one.queue.confirm(last)
        assert not await one.queue.take(2)
        other.append("user3")
        await other.flush()
        assert len(await other.queue.take(2)) == 1
        assert not await one.queue.take(2)


async def test_emptied_redis_repeats_no_event(shared_redis: RedisServer) -> None:
    cluster = OccupancyCluster(shared_redis.url)
    async with cluster.node() as node:
        node.occupancy.enter(ANN)
        await node.flush()
        with shared_redis.client() as client:
            client.delete(*client.keys(f"{cluster.prefix}:*"))
        await cluster.pass_time(0.6)
        node.occupancy.enter(BOB)
        node.occupancy.leave(ANN)
        await cluster.pass_time(LONG)
        assert node.changes == ["user.online ann", "user.online bob", "user.offline ann"]


async def test_events_outlive_the_process(kept: OccupancyCluster) -> None:
    async with kept.node() as node:
        for number in range(12):
            node.append(f"user{number}")
        await node.flush()
        await node.queue.confirm((await node.queue.take(2))[1])
    async with kept.node() as node:
        node.append("user12")
        await node.flush()
        assert [each["user_id"] for each in await node.events()] == [
            f"user{number}" for number in range(2, 13)
        ]


async def test_users_of_a_crashed_process_go_offline_unless_they_return(
    kept: OccupancyCluster,
) -> None:
    async with kept.node() as node:
        for user in (ANN, BOB):
            node.occupancy.enter(user)
        await node.flush()
        if kept.is_redis:
            await node.kill()
    async with kept.node() as node:
        node.occupancy.enter(BOB)
        await kept.pass_time(4.0 if kept.is_redis else LONG)
        assert node.changes == ["user.offline ann"]


async def test_wills_of_a_crashed_process_are_due_on_time(kept: OccupancyCluster) -> None:
    async with kept.node() as node:
        for user, name in ((ANN, "ann"), (BOB, "bob")):
            node.occupancy.enter(user)
            await node.occupancy.put_will(will(name, after_ms=3000))
        eve = user_subject("acme", "eve")
        node.occupancy.enter(eve)
        await node.occupancy.put_will(will("eve", after_ms=3000))
        await kept.pass_time(0.6)
        node.occupancy.leave(eve)
        await node.flush()
        if kept.is_redis:
            await node.kill()
    kept.clock.advance(1)
    async with kept.node() as node:
        node.occupancy.enter(BOB)
        await kept.pass_time(2.4 if kept.is_redis else 1.9)
        assert node.wills == []
        await kept.pass_time(1.0 if kept.is_redis else 0.6)
        assert sorted(each.user_id for each in node.wills) == ["ann", "eve"]
        for each in node.wills:
            await node.occupancy.settle_will(each)
    async with kept.node() as node:
        await kept.pass_time(2)
        assert node.wills == []


async def test_last_seen_is_when_the_last_connection_ended(cluster: OccupancyCluster) -> None:
    async with cluster.node() as node:
        assert await node.occupancy.last_seen(("acme", "ann")) is None
        node.occupancy.enter(ANN)
        await node.flush()
        assert await node.occupancy.last_seen(("acme", "ann")) is None
        began_ms = cluster.now_ms()
        node.occupancy.leave(ANN)
        await cluster.pass_time(LONG)
        seen_ms = await node.occupancy.last_seen(("acme", "ann"))
        assert seen_ms is not None
        assert 0 <= seen_ms - began_ms < LONG * 500
        assert await node.occupancy.last_seen(("other", "ann")) is None
        node.occupancy.enter(ANN)
        await node.flush()
        assert await node.occupancy.last_seen(("acme", "ann")) is None


async def test_last_seen_expires_and_is_bounded(cluster: OccupancyCluster) -> None:
    async with cluster.node(seen_seconds=LONG, seen_per_org=1) as node:
        for subject in (ANN, BOB):
            node.occupancy.enter(subject)
            node.occupancy.leave(subject)
            await cluster.pass_time(0.01)
        await node.flush()
        assert await node.occupancy.last_seen(("acme", "ann")) is None
        assert await node.occupancy.last_seen(("acme", "bob")) is not None
        await cluster.pass_time(LONG)
        assert await node.occupancy.last_seen(("acme", "bob")) is None


async def test_last_seen_counts_the_connections_of_all_nodes(shared: OccupancyCluster) -> None:
    async with shared.node() as dead, shared.node() as other:
        dead.occupancy.enter(ANN)
        dead.occupancy.enter(BOB)
        await dead.flush()
        other.occupancy.enter(ANN)
        await other.flush()
        killed_ms = shared.now_ms()
        await dead.kill()
        await shared.pass_time(2.0)
        assert await other.occupancy.last_seen(("acme", "ann")) is None
        bob_ms = await other.occupancy.last_seen(("acme", "bob"))
        assert bob_ms is not None
        assert abs(bob_ms - killed_ms) < 1000
        left_ms = shared.now_ms()
        other.occupancy.leave(ANN)
        await other.flush()
        ann_ms = await other.occupancy.last_seen(("acme", "ann"))
        assert ann_ms is not None
        assert ann_ms >= left_ms


async def test_last_seen_outlives_the_process(kept: OccupancyCluster) -> None:
    async with kept.node() as node:
        for subject in (ANN, BOB):
            node.occupancy.enter(subject)
        await kept.pass_time(0.01)
        ended_ms = kept.now_ms()
        node.occupancy.leave(BOB)
        await node.flush()
        if node.store is not None:
            await node.store.commit()
    await kept.pass_time(3.0)
    async with kept.node() as node:
        bob_ms = await node.occupancy.last_seen(("acme", "bob"))
        assert bob_ms is not None
        assert abs(bob_ms - ended_ms) < 500
        if node.store is not None:
            # Still connected when the process ended.
            assert await node.occupancy.last_seen(("acme", "ann")) == ended_ms
