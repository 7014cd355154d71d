"""Sessions over several nodes and a real Redis: nodes that die, are cut off, or come back."""

import asyncio
import contextlib

import pytest

from client_sdk.contract import ErrorCode
from server.brokers import RedisAssembly
from server.brokers.redis.connection.keys import Keys
from server.core.errors import FloorcastError
from server.core.sessions.records import session_channel
from tests.kit.redis.servers import RedisServer, redis_server
from tests.kit.rigs.presence_cluster import ROOM, Hall, Quarter


@pytest.fixture
def quarter(shared_redis: RedisServer) -> Quarter:
    return Quarter(shared_redis.url)


async def test_every_node_hears_the_same_in_the_same_order(quarter: Quarter) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await one.join("ann1")
        await two.join("bob1", "ann2")
        await one.assembly.leave("ann1", ROOM)
        assert await one.who() == await two.who() == {"ann": 1, "bob": 1}
        await two.assembly.leave("ann2", ROOM)
        await quarter.settle()
        expected = [("joined", "ann", 1), ("joined", "bob", 2), ("left", "ann", 1)]
        assert one.news() == two.news() == expected
        revisions = [each.revision for each in one.heard if each.revision]
        assert revisions == sorted(set(revisions))


async def test_who_is_cut_off_here_and_back_there_was_never_gone(quarter: Quarter) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await one.join("ann1", "bob1")
        one.lose("ann1")
        await quarter.pass_time(9.0)
        await two.join("ann2")
        two.lose("ann2")
        await quarter.pass_time(9.0)
        assert two.news()[2:] == []
        await quarter.pass_time(2.0)
        await quarter.pass_time(20.0)
        assert one.news()[2:] == two.news()[2:] == [("left", "ann", 1)]


async def test_a_moderator_of_another_node_sends_away_and_closes(quarter: Quarter) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await one.join("ann1", "bob1")
        await two.join("bob2")
        assert await two.assembly.kick(ROOM, "bob") == 2
        assert await two.assembly.close(ROOM) == 1
        await quarter.settle()
        assert one.news()[2:] == two.news()[2:] == [("kicked", "bob", 1), ("closed", "", 0)]
        await quarter.pass_time(62.0)
        assert await one.assembly.who(ROOM) is None


async def test_a_moderator_of_another_node_sends_away_who_was_given_up_already(
    quarter: Quarter,
) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await one.join("ann1", "bob1")
        one.lose("bob1")
        await quarter.pass_time(20.0)
        with pytest.raises(FloorcastError, match="not in the session"):
            await two.assembly.kick(ROOM, "bob")
        await quarter.settle()
        assert one.news()[2:] == two.news()[2:] == [("left", "bob", 1), ("barred", "bob", 1)]


async def test_those_of_a_node_that_died_leave_once_after_its_lease(quarter: Quarter) -> None:
    async with quarter.hall() as one, quarter.hall() as two, quarter.hall() as three:
        await one.join("ann1", "cid1")
        await two.join("bob1", "cid2")
        await three.join("bob2")
        three.lose("bob2")
        await quarter.settle()
        quarter.halls.remove(two)
        await two.die()
        await quarter.pass_time(6.0)
        assert await one.who() == {"ann": 1, "cid": 2, "bob": 1}, "it may be slow"
        await quarter.pass_time(8.0)
        assert one.news()[3:] == three.news()[3:] == [("left", "bob", 2)]
        assert await one.who() == {"ann": 1, "cid": 1}
        await quarter.pass_time(20.0)
        assert len(one.news()) == 4, "and once is enough"
        quarter.halls.append(two)


async def test_whoever_came_to_another_node_meanwhile_was_never_gone(quarter: Quarter) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await one.join("ann1")
        await two.join("bob1")
        await quarter.settle()
        quarter.halls.remove(two)
        await two.die()
        await quarter.pass_time(5.0)
        await one.join("bob2")
        await quarter.pass_time(30.0)
        assert one.news()[2:] == []
        assert await one.who() == {"ann": 1, "bob": 1}
        quarter.halls.append(two)


async def test_what_a_dead_node_waited_for_is_waited_for_by_another(quarter: Quarter) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await two.join("ann1")
        two.lose("ann1")
        await two.quiet()
        quarter.halls.remove(two)
        await two.die()
        await quarter.pass_time(12.0)
        assert one.news() == [("joined", "ann", 1), ("left", "ann", 0)]
        await quarter.pass_time(70.0)
        assert await one.assembly.who(ROOM) is None
        quarter.halls.append(two)


async def test_the_sessions_of_a_node_that_stops_are_taken_over_at_once(quarter: Quarter) -> None:
    async with quarter.hall() as one:
        async with quarter.hall() as two:
            await one.join("ann1")
            await two.join("bob1")
            await quarter.settle()
        await quarter.pass_time(5.0)
        assert one.news()[2:] == [("left", "bob", 1)]


async def test_a_node_that_was_given_up_and_lives_says_who_is_there(
    quarter: Quarter, shared_redis: RedisServer
) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await one.join("ann1")
        await two.join("bob1")
        await quarter.settle()
        quarter.halls.remove(two)
        await quarter.pass_time(15.0)
        assert one.news()[2:] == [("left", "bob", 1)]
        quarter.halls.append(two)
        await quarter.pass_time(3.0)
        assert one.news()[2:] == [("left", "bob", 1), ("joined", "bob", 2)]
        await quarter.pass_time(30.0)
        assert one.news()[4:] == []
        await two.assembly.leave("bob1", ROOM)
        assert await one.who() == {"ann": 1}
        await quarter.settle()
        with shared_redis.client() as client:
            nodes = client.hgetall(f"{quarter.prefix}:nodes")
            duties = list(client.scan_iter(f"{quarter.prefix}:node:*:sessions"))
        assert sorted(sign[:1] == b"-" for sign in nodes.values()) == [False, False, True]
        assert len(duties) == 1, "nobody looks after anything in the name of the dead"


async def test_who_is_back_and_has_lost_the_place_is_told(quarter: Quarter) -> None:
    async with quarter.hall(max_participants=2) as one, quarter.hall(max_participants=2) as two:
        await one.join("ann1", "bob1")
        two.assembly.rejoin("cid1", "cid", ROOM)
        await quarter.settle()
        assert two.news()[2:] == [("refused", "cid", 0)]
        assert [each.connection_id for each in two.heard if each.what == "refused"] == ["cid1"]
        assert await one.who() == {"ann": 1, "bob": 1}
        await one.assembly.close(ROOM)
        two.assembly.rejoin("dora1", "dora", ROOM)
        await quarter.settle()
        assert two.news()[3:] == [("closed", "", 0), ("refused", "dora", 0)]


async def test_a_node_that_was_deaf_learns_who_was_sent_away(
    quarter: Quarter, shared_redis: RedisServer
) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await one.join("ann1")
        await two.join("bob1", "cid1")
        await two.watch(("acme", "other"))
        await two.join("cid1", key=("acme", "other"))
        await quarter.settle()
        assert two.broker is not None
        overhearers = two.broker._follower._overhearers
        two.broker._follower._overhearers = []
        await one.assembly.kick(ROOM, "bob")
        await one.assembly.close(("acme", "other"))
        assert two.news()[4:] == []
        two.broker._follower._overhearers = overhearers
        with shared_redis.client() as client:
            client.client_kill_filter(_type="pubsub")
        await two.until(lambda: len(two.news()) >= 6)
        assert sorted(two.news()[4:]) == [("closed", "", 0), ("kicked", "bob", 2)]
        assert {each.key for each in two.heard[-2:]} == {ROOM, ("acme", "other")}


async def test_what_strangers_say_is_counted_and_not_believed(
    quarter: Quarter, shared_redis: RedisServer
) -> None:
    async with quarter.hall() as hall:
        await hall.join("ann1")
        spoken = Keys(quarter.prefix).spoken(session_channel(*ROOM))
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
        assert hall.news() == [("joined", "ann", 1)]
        assert hall.counters.total("broker.strange") == len(strange)


# --- Redis itself is away, or has lost everything


async def test_who_is_cut_off_as_it_comes_back_is_waited_for_as_before(quarter: Quarter) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        await one.join("ann1", "bob1")
        await two.join("ann2")
        one.lose("bob1")
        await quarter.pass_time(5.0)
        coming = asyncio.create_task(two.assembly.join("bob2", "bob", ROOM))
        # Redis has been asked, and has not answered.
        await asyncio.sleep(0)
        coming.cancel()
        await asyncio.wait([coming])
        assert coming.cancelled()
        await quarter.pass_time(9.0)
        assert await one.who() == {"ann": 2, "bob": 0}
        await quarter.pass_time(2.0)
        assert one.news() == [("joined", "ann", 1), ("joined", "bob", 2), ("left", "bob", 1)]


async def test_while_redis_is_away_everybody_stays_and_is_told_at_once() -> None:
    with redis_server() as server:
        quarter = Quarter(server.url)
        async with quarter.hall(timeout_seconds=1.0) as one, quarter.hall() as two:
            await one.join("ann1", "cid1")
            await two.join("bob1")
            await quarter.settle()
            server.pause()
            for call in (
                one.assembly.join("dora1", "dora", ROOM),
                one.assembly.leave("ann1", ROOM),
                one.assembly.kick(ROOM, "bob"),
            ):
                with pytest.raises(FloorcastError) as refused:
                    await call
                assert refused.value.code is ErrorCode.SERVER_OVERLOADED
                assert refused.value.retry_after_ms
            one.lose("cid1")
            quarter.clock.advance(20.0)
            server.resume()
            assert isinstance(one.assembly, RedisAssembly)
            pipeline = one.assembly.pipeline
            await one.until(lambda: pipeline.up)
            await quarter.pass_time(9.0)
            # What was asked may have come to be; what was asked last holds.
            assert await two.who() == {"ann": 1, "cid": 0, "bob": 1}
            await quarter.pass_time(3.0)
            assert ("left", "cid", 2) in two.news()
            assert await two.who() == {"ann": 1, "bob": 1}


async def test_what_redis_has_lost_is_told_to_it_again_and_nobody_notices() -> None:
    with redis_server() as server:
        quarter = Quarter(server.url)
        async with quarter.hall() as one, quarter.hall() as two:
            await one.assembly.join("ann1", "ann", ROOM, {"title": "mine"})
            await two.join("bob1", "cid1", "dora1")
            two.lose("cid1")
            await quarter.settle()
            before = len(one.news())
            with server.client() as client:
                client.flushall()
            two.lose("dora1")
            await quarter.pass_time(5.0)
            assert one.news()[before:] == []
            gathering = await one.assembly.who(ROOM)
            assert gathering is not None
            assert gathering.metadata == {"title": "mine"}
            assert await one.who() == {"ann": 1, "bob": 1, "cid": 0, "dora": 0}
            assert one.assembly.session_count == 1
            await quarter.pass_time(12.0)
            left = {user for what, user, _ in one.news()[before:] if what == "left"}
            assert left == {"cid", "dora"}
            assert await two.who() == {"ann": 1, "bob": 1}
            await quarter.pass_time(20.0)
            assert len(one.news()) == before + 2
            assert await one.assembly.kick(ROOM, "bob") == 1


async def holds_nothing(quarter: Quarter, hall: Hall, shared_redis: RedisServer) -> None:
    """Everything is over: nothing is left in the node, and in Redis only that it lives."""
    assert isinstance(hall.assembly, RedisAssembly)
    duties = hall.assembly._duties
    assert (len(duties), duties.debts, duties._away, duties.unlisted) == (0, {}, {}, {})
    with shared_redis.client() as client:
        keys = {each.decode() for each in client.scan_iter(f"{quarter.prefix}:*")}
    assert keys == {f"{quarter.prefix}:nodes"}


async def test_in_the_end_nothing_is_left(quarter: Quarter, shared_redis: RedisServer) -> None:
    async with quarter.hall() as one, quarter.hall() as two:
        for number, hall in enumerate((one, two)):
            await hall.watch(("acme", "other"))
            await hall.join(*(f"u{each}{number}" for each in range(number, 9)))
            await hall.join(f"ann{number}", key=("acme", "other"))
        assert await one.assembly.kick(ROOM, "u3") == 2
        for each in range(9):
            one.lose(f"u{each}0")
            two.assembly.depart(f"u{each}1", ROOM, lost=False)
        one.assembly.depart("ann0", ("acme", "other"), lost=False)
        await two.assembly.close(("acme", "other"))
        await quarter.settle()
        for hall in (one, two):
            assert hall.broker is not None
            for key in (ROOM, ("acme", "other")):
                await hall.broker.unwatch(session_channel(*key))
        for _ in range(90):
            quarter.clock.advance(1.0)
            await one.quiet()
            await two.quiet()
        for hall in (one, two):
            await holds_nothing(quarter, hall, shared_redis)


async def test_a_redis_that_went_back_in_time_hears_again_who_is_in_and_who_is_not() -> None:
    with redis_server() as server:
        quarter = Quarter(server.url)
        async with quarter.hall() as one, quarter.hall() as two:
            await one.join("ann1", "eve1")
            await two.join("bob1")
            with server.client() as client:
                client.save()
            await two.join("cid1", "dan1")
            await one.assembly.leave("eve1", ROOM)
            await two.assembly.leave("dan1", ROOM)
            await two.assembly.leave("bob1", ROOM)
            await quarter.settle()
            before = [len(hall.news()) for hall in (one, two)]
            server.kill()
            server.start()
            for hall in (one, two):
                await hall.until(lambda hall=hall: hall.counters.total("broker.lost") > 0)  # type: ignore[misc]
                await answers(hall)
            await quarter.pass_time(5.0)
            assert await one.who() == await two.who() == {"ann": 1, "cid": 1}
            for hall, count in zip((one, two), before, strict=True):
                assert not {"joined", "kicked"} & {what for what, *_ in hall.news()[count:]}
            before = [len(hall.news()) for hall in (one, two)]
            revisions = [each.revision for each in two.heard if each.revision]
            await one.join("fay1")
            await quarter.settle()
            assert one.news()[before[0] :] == two.news()[before[1] :] == [("joined", "fay", 3)]
            [joined] = [each for each in two.heard if each.user_id == "fay"]
            assert joined.revision > max(revisions), "it is news"


async def answers(hall: Hall) -> None:
    """Wait until it gets through to Redis again."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(FloorcastError):
                await hall.who()
                return
            await asyncio.sleep(0.01)
