"""Sessions over several nodes and a real Redis: nodes that die, are cut off, or come back."""

import asyncio
import contextlib

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import RedisPresence
from server.brokers.redis.connection.keys import Keys
from server.core.errors import FloorcastError
from server.core.sessions.records import session_channel
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.rigs.presence_cluster import ROOM, PresenceCluster, PresenceNode


@pytest.fixture
def quarter(shared_redis: RedisServer) -> PresenceCluster:
    return PresenceCluster(shared_redis.url)


async def test_every_node_hears_the_same_in_the_same_order(quarter: PresenceCluster) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await one.join("ann1")
        await two.join("bob1", "ann2")
        await one.presence.leave("ann1", ROOM)
        assert await one.participants() == await two.participants() == {"ann": 1, "bob": 1}
        await two.presence.leave("ann2", ROOM)
        await quarter.settle()
        expected = [("joined", "ann", 1), ("joined", "bob", 2), ("left", "ann", 1)]
        assert one.event_summaries() == two.event_summaries() == expected
        revisions = [each.revision for each in one.events if each.revision]
        assert revisions == sorted(set(revisions))


async def test_who_is_cut_off_here_and_back_there_was_never_gone(quarter: PresenceCluster) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await one.join("ann1", "bob1")
        one.disconnect("ann1")
        await quarter.pass_time(9.0)
        await two.join("ann2")
        two.disconnect("ann2")
        await quarter.pass_time(9.0)
        assert two.event_summaries()[2:] == []
        await quarter.pass_time(2.0)
        await quarter.pass_time(20.0)
        assert one.event_summaries()[2:] == two.event_summaries()[2:] == [("left", "ann", 1)]


async def test_a_moderator_of_another_node_sends_away_and_closes(quarter: PresenceCluster) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await one.join("ann1", "bob1")
        await two.join("bob2")
        assert await two.presence.kick(ROOM, "bob") == 2
        assert await two.presence.close(ROOM) == 1
        await quarter.settle()
        assert (
            one.event_summaries()[2:]
            == two.event_summaries()[2:]
            == [("kicked", "bob", 1), ("closed", "", 0)]
        )
        await quarter.pass_time(62.0)
        assert await one.presence.participants(ROOM) is None


async def test_a_moderator_of_another_node_sends_away_who_was_given_up_already(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await one.join("ann1", "bob1")
        one.disconnect("bob1")
        await quarter.pass_time(20.0)
        with pytest.raises(FloorcastError, match="not in the session"):
            await two.presence.kick(ROOM, "bob")
        await quarter.settle()
        assert (
            one.event_summaries()[2:]
            == two.event_summaries()[2:]
            == [("left", "bob", 1), ("barred", "bob", 1)]
        )


async def test_those_of_a_node_that_died_leave_once_after_its_lease(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as one, quarter.node() as two, quarter.node() as three:
        await one.join("ann1", "cid1")
        await two.join("bob1", "cid2")
        await three.join("bob2")
        three.disconnect("bob2")
        await quarter.settle()
        quarter.nodes.remove(two)
        await two.die()
        await quarter.pass_time(6.0)
        assert await one.participants() == {"ann": 1, "cid": 2, "bob": 1}, "it may be slow"
        await quarter.pass_time(8.0)
        assert one.event_summaries()[3:] == three.event_summaries()[3:] == [("left", "bob", 2)]
        assert await one.participants() == {"ann": 1, "cid": 1}
        await quarter.pass_time(20.0)
        assert len(one.event_summaries()) == 4, "and once is enough"
        quarter.nodes.append(two)


async def test_whoever_came_to_another_node_meanwhile_was_never_gone(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await one.join("ann1")
        await two.join("bob1")
        await quarter.settle()
        quarter.nodes.remove(two)
        await two.die()
        await quarter.pass_time(5.0)
        await one.join("bob2")
        await quarter.pass_time(30.0)
        assert one.event_summaries()[2:] == []
        assert await one.participants() == {"ann": 1, "bob": 1}
        quarter.nodes.append(two)


async def test_what_a_dead_node_waited_for_is_waited_for_by_another(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await two.join("ann1")
        two.disconnect("ann1")
        await two.wait_idle()
        quarter.nodes.remove(two)
        await two.die()
        await quarter.pass_time(12.0)
        assert one.event_summaries() == [("joined", "ann", 1), ("left", "ann", 0)]
        await quarter.pass_time(70.0)
        assert await one.presence.participants(ROOM) is None
        quarter.nodes.append(two)


async def test_the_sessions_of_a_node_that_stops_are_taken_over_at_once(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as one:
        async with quarter.node() as two:
            await one.join("ann1")
            await two.join("bob1")
            await quarter.settle()
        await quarter.pass_time(5.0)
        assert one.event_summaries()[2:] == [("left", "bob", 1)]


async def test_a_node_that_was_given_up_and_lives_says_who_is_there(
    quarter: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await one.join("ann1")
        await two.join("bob1")
        await quarter.settle()
        quarter.nodes.remove(two)
        await quarter.pass_time(15.0)
        assert one.event_summaries()[2:] == [("left", "bob", 1)]
        quarter.nodes.append(two)
        await quarter.pass_time(3.0)
        assert one.event_summaries()[2:] == [("left", "bob", 1), ("joined", "bob", 2)]
        await quarter.pass_time(30.0)
        assert one.event_summaries()[4:] == []
        await two.presence.leave("bob1", ROOM)
        assert await one.participants() == {"ann": 1}
        await quarter.settle()
        with shared_redis.client() as client:
            nodes = client.hgetall(f"{quarter.prefix}:nodes")
            duties = list(client.scan_iter(f"{quarter.prefix}:node:*:sessions"))
        assert sorted(sign[:1] == b"-" for sign in nodes.values()) == [False, False, True]
        assert len(duties) == 1, "nobody looks after anything in the name of the dead"


async def test_who_is_back_and_has_lost_the_place_is_told(quarter: PresenceCluster) -> None:
    async with quarter.node(max_participants=2) as one, quarter.node(max_participants=2) as two:
        await one.join("ann1", "bob1")
        two.presence.rejoin("cid1", "cid", ROOM)
        await quarter.settle()
        assert two.event_summaries()[2:] == [("refused", "cid", 0)]
        assert [each.connection_id for each in two.events if each.kind == "refused"] == ["cid1"]
        assert await one.participants() == {"ann": 1, "bob": 1}
        await one.presence.close(ROOM)
        two.presence.rejoin("dora1", "dora", ROOM)
        await quarter.settle()
        assert two.event_summaries()[3:] == [("closed", "", 0), ("refused", "dora", 0)]


async def test_a_node_that_was_deaf_learns_who_was_sent_away(
    quarter: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await one.join("ann1")
        await two.join("bob1", "cid1")
        await two.watch(("acme", "other"))
        await two.join("cid1", key=("acme", "other"))
        await quarter.settle()
        assert two.broker is not None
        overhearers = two.broker._subscriber._listeners
        two.broker._subscriber._listeners = []
        await one.presence.kick(ROOM, "bob")
        await one.presence.close(("acme", "other"))
        assert two.event_summaries()[4:] == []
        two.broker._subscriber._listeners = overhearers
        with shared_redis.client() as client:
            client.client_kill_filter(_type="pubsub")
        await two.wait_until(lambda: len(two.event_summaries()) >= 6)
        assert sorted(two.event_summaries()[4:]) == [("closed", "", 0), ("kicked", "bob", 2)]
        assert {each.key for each in two.events[-2:]} == {ROOM, ("acme", "other")}


async def test_what_strangers_say_is_counted_and_not_believed(
    quarter: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with quarter.node() as hall:
        await hall.join("ann1")
        spoken = Keys(quarter.prefix).base(session_channel(*ROOM))
        said = b'{"v":1,"said":"%b","revision":%b,"user":%b,"count":%b,"ts":1}'
        strange = [
            *(b"", b"{}", b"[]", b"null", b"\xff\x00", b'{"v":1,"said":"left"}', b"x" * 5_000_000),
            said % (b"refused", b"9", b'"ann"', b"1"),
            said % (b"gone", b"9", b'"ann"', b"1"),
            said % (b"left", b'"9"', b'"ann"', b"1"),
            said % (b"left", b"9", b"null", b"1"),
            said % (b"left", b"9", b'"ann"', b'"1"'),
        ]
        with shared_redis.client() as client:
            for each in strange:
                client.publish(spoken, each)
        await quarter.settle()
        assert hall.event_summaries() == [("joined", "ann", 1)]
        assert hall.counters.total("broker.strange") == len(strange)


# --- Redis itself is away, or has lost everything


async def test_who_is_cut_off_as_it_comes_back_is_waited_for_as_before(
    quarter: PresenceCluster,
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        await one.join("ann1", "bob1")
        await two.join("ann2")
        one.disconnect("bob1")
        await quarter.pass_time(5.0)
        coming = asyncio.create_task(two.presence.join("bob2", "bob", ROOM))
        # Redis has been asked, and has not answered.
        await asyncio.sleep(0)
        coming.cancel()
        await asyncio.wait([coming])
        assert coming.cancelled()
        await quarter.pass_time(9.0)
        assert await one.participants() == {"ann": 2, "bob": 0}
        await quarter.pass_time(2.0)
        assert one.event_summaries() == [
            ("joined", "ann", 1),
            ("joined", "bob", 2),
            ("left", "bob", 1),
        ]


async def test_while_redis_is_away_everybody_stays_and_is_told_at_once() -> None:
    with redis_server() as server:
        quarter = PresenceCluster(server.url)
        async with quarter.node(timeout_seconds=1.0) as one, quarter.node() as two:
            await one.join("ann1", "cid1")
            await two.join("bob1")
            await quarter.settle()
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
            quarter.clock.advance(20.0)
            server.resume()
            assert isinstance(one.presence, RedisPresence)
            pipeline = one.presence.pipeline
            await one.wait_until(lambda: pipeline.is_up)
            await quarter.pass_time(9.0)
            # What was asked may have come to be; what was asked last holds.
            assert await two.participants() == {"ann": 1, "cid": 0, "bob": 1}
            await quarter.pass_time(3.0)
            assert ("left", "cid", 2) in two.event_summaries()
            assert await two.participants() == {"ann": 1, "bob": 1}


async def test_what_redis_has_lost_is_told_to_it_again_and_nobody_notices() -> None:
    with redis_server() as server:
        quarter = PresenceCluster(server.url)
        async with quarter.node() as one, quarter.node() as two:
            await one.presence.join("ann1", "ann", ROOM, {"title": "mine"})
            await two.join("bob1", "cid1", "dora1")
            two.disconnect("cid1")
            await quarter.settle()
            before = len(one.event_summaries())
            with server.client() as client:
                client.flushall()
            two.disconnect("dora1")
            await quarter.pass_time(5.0)
            assert one.event_summaries()[before:] == []
            gathering = await one.presence.participants(ROOM)
            assert gathering is not None
            assert gathering.metadata == {"title": "mine"}
            assert await one.participants() == {"ann": 1, "bob": 1, "cid": 0, "dora": 0}
            assert one.presence.session_count == 1
            await quarter.pass_time(12.0)
            left = {user for what, user, _ in one.event_summaries()[before:] if what == "left"}
            assert left == {"cid", "dora"}
            assert await two.participants() == {"ann": 1, "bob": 1}
            await quarter.pass_time(20.0)
            assert len(one.event_summaries()) == before + 2
            assert await one.presence.kick(ROOM, "bob") == 1


async def wait_until_empty(
    quarter: PresenceCluster, hall: PresenceNode, shared_redis: RedisServer
) -> None:
    """Everything is over: nothing is left in the node, and in Redis only that it lives."""
    assert isinstance(hall.presence, RedisPresence)
    duties = hall.presence._updates
    assert (len(duties), duties.updates, duties._lost, duties.unregistered) == (0, {}, {}, {})
    with shared_redis.client() as client:
        keys = {each.decode() for each in client.scan_iter(f"{quarter.prefix}:*")}
    assert keys == {f"{quarter.prefix}:nodes"}


async def test_in_the_end_nothing_is_left(
    quarter: PresenceCluster, shared_redis: RedisServer
) -> None:
    async with quarter.node() as one, quarter.node() as two:
        for number, hall in enumerate((one, two)):
            await hall.watch(("acme", "other"))
            await hall.join(*(f"u{each}{number}" for each in range(number, 9)))
            await hall.join(f"ann{number}", key=("acme", "other"))
        assert await one.presence.kick(ROOM, "u3") == 2
        for each in range(9):
            one.disconnect(f"u{each}0")
            two.presence.remove(f"u{each}1", ROOM, lost=False)
        one.presence.remove("ann0", ("acme", "other"), lost=False)
        await two.presence.close(("acme", "other"))
        await quarter.settle()
        for hall in (one, two):
            assert hall.broker is not None
            for key in (ROOM, ("acme", "other")):
                await hall.broker.unwatch(session_channel(*key))
        for _ in range(90):
            quarter.clock.advance(1.0)
            await one.wait_idle()
            await two.wait_idle()
        for hall in (one, two):
            await wait_until_empty(quarter, hall, shared_redis)


async def test_a_redis_that_went_back_in_time_hears_again_who_is_in_and_who_is_not() -> None:
    with redis_server() as server:
        quarter = PresenceCluster(server.url)
        async with quarter.node() as one, quarter.node() as two:
            await one.join("ann1", "eve1")
            await two.join("bob1")
            with server.client() as client:
                client.save()
            await two.join("cid1", "dan1")
            await one.presence.leave("eve1", ROOM)
            await two.presence.leave("dan1", ROOM)
            await two.presence.leave("bob1", ROOM)
            await quarter.settle()
            before = [len(hall.event_summaries()) for hall in (one, two)]
            server.kill()
            server.start()
            for hall in (one, two):
                await hall.wait_until(lambda hall=hall: hall.counters.total("broker.lost") > 0)  # type: ignore[misc]
                await wait_until_answering(hall)
            await quarter.pass_time(5.0)
            assert await one.participants() == await two.participants() == {"ann": 1, "cid": 1}
            for hall, count in zip((one, two), before, strict=True):
                assert not {"joined", "kicked"} & {
                    what for what, *_ in hall.event_summaries()[count:]
                }
            before = [len(hall.event_summaries()) for hall in (one, two)]
            revisions = [each.revision for each in two.events if each.revision]
            await one.join("fay1")
            await quarter.settle()
            assert (
                one.event_summaries()[before[0] :]
                == two.event_summaries()[before[1] :]
                == [("joined", "fay", 3)]
            )
            [joined] = [each for each in two.events if each.user_id == "fay"]
            assert joined.revision > max(revisions), "it is news"


async def wait_until_answering(hall: PresenceNode) -> None:
    """Wait until it gets through to Redis again."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(FloorcastError):
                await hall.participants()
                return
            await asyncio.sleep(0.01)
